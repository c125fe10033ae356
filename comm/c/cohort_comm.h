/* The communication core of Cohort for C, and for every language that can call C.
 *
 * Link `cohort::comm_c` (libcohort_c.so), which needs no C++ of its user's. A group of ranks is made in one of four
 * ways, and then its ranks call the same operations in the same order:
 *
 *   cohort_comm* comm = NULL;
 *   if (cohort_comm_create_folder("/shared/empty-folder", rank, size, NULL, &comm) != COHORT_OK)
 *     fprintf(stderr, "%s\n", cohort_last_message());
 *   cohort_all_reduce(comm, mine, sum, count, COHORT_F32, COHORT_SUM, NULL);
 *   cohort_comm_free(comm);
 *
 * Every function that can fail returns a cohort_status. What was wrong, and which ranks are at fault, is in
 * cohort_last_message() of the same thread. No C++ exception leaves this library. NULL handles are an error
 * (COHORT_INVALID_ARGUMENT), not a crash; handles that were freed are the caller's to avoid.
 *
 * Operations take a `cohort_work** work`. With NULL, they return when the operation is over, with its status. Else they
 * return at once, *work is a handle on the operation in flight (NULL if it could not be started), and the buffers
 * belong to it until cohort_work_wait says that it is over.
 *
 * Thread-safe: handles may be used from several threads, but the operations of one group must be started in one order
 * on every rank.
 */
#ifndef COHORT_COMM_C_COHORT_COMM_H_
#define COHORT_COMM_C_COHORT_COMM_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define COHORT_API __attribute__((visibility("default")))
#else
#define COHORT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The interface of this header. Within one number, functions and enumerators are only added. */
#define COHORT_COMM_API_VERSION 1

/* The number that the library was built with: at least COHORT_COMM_API_VERSION for this header to be served. */
COHORT_API int cohort_comm_api_version(void);

/* ---- Failures ---- */

typedef enum cohort_status {
  COHORT_OK = 0,
  COHORT_INVALID_ARGUMENT = 1,    /* a wrong argument, or ranks that call different operations */
  COHORT_UNAVAILABLE = 2,         /* ranks were lost, or cannot be reached: the message names them */
  COHORT_DEADLINE_EXCEEDED = 3,   /* ranks did not come in time: the message names them */
  COHORT_FAILED_PRECONDITION = 4, /* not possible in this state */
  COHORT_UNIMPLEMENTED = 5,       /* this build has no such thing, for example no MPI */
  COHORT_OUT_OF_MEMORY = 6,
  COHORT_INTERNAL = 7 /* anything else */
} cohort_status;

/* "UNAVAILABLE" for COHORT_UNAVAILABLE; "?" for numbers that are none. */
COHORT_API const char* cohort_status_name(cohort_status status);

/* What went wrong in the last call of this thread that did not return COHORT_OK; "" before. Valid until the thread's
 * next failing call. Never NULL. */
COHORT_API const char* cohort_last_message(void);

/* ---- Data types and reductions ---- */

typedef enum cohort_dtype {
  COHORT_F32 = 0,
  COHORT_BF16 = 1,
  COHORT_F16 = 2,
  COHORT_F64 = 3,
  COHORT_I8 = 4,
  COHORT_U8 = 5,
  COHORT_I32 = 6,
  COHORT_I64 = 7,
  COHORT_NUM_DTYPES /* not a type */
} cohort_dtype;

typedef enum cohort_reduce_op {
  COHORT_SUM = 0,
  COHORT_MIN = 1,
  COHORT_MAX = 2,
  COHORT_PRODUCT = 3,
  COHORT_NUM_REDUCE_OPS /* not an operation */
} cohort_reduce_op;

/* Bytes of one element; 0 for what is no type. "f32"; "?". */
COHORT_API size_t cohort_dtype_size(cohort_dtype dtype);
COHORT_API const char* cohort_dtype_name(cohort_dtype dtype);

/* ---- Groups ---- */

typedef struct cohort_comm cohort_comm;
typedef struct cohort_work cohort_work;

/* No deadline. As a timeout of options: operations wait for their peers as long as these live. */
#define COHORT_FOREVER INT64_MAX

/* Fill with COHORT_COMM_OPTIONS_INIT, then change what is wanted. NULL, where options are asked for, stands for it. */
typedef struct cohort_comm_options {
  size_t struct_size; /* sizeof(cohort_comm_options): later versions add members at the end */
  int64_t
      timeout_nanos; /* how long an operation waits for its peers, then it names the late ones; 0: the default */
} cohort_comm_options;
#define COHORT_COMM_OPTIONS_INIT \
  { sizeof(cohort_comm_options), 0 }

/* How ranks find each other, brought by the caller: a small key-value board that all ranks see. Keys are written once.
 * Called during the create only, from its thread. */
typedef struct cohort_rendezvous {
  size_t struct_size; /* sizeof(cohort_rendezvous) */
  void* user;         /* handed to the callbacks */
  int rank;
  int size;
  /* Makes `bytes` bytes at `value` known to all ranks under `key`. 0, or anything else for failure. */
  int (*put)(void* user, const char* key, const void* value, size_t bytes);
  /* Looks for the key, and may wait for it up to timeout_nanos. Found: *bytes = the value's length, its first
   * min(room, *bytes) bytes go to `value`, 0 is returned; asked again with more room where it did not suffice. Not
   * there yet: COHORT_DEADLINE_EXCEEDED; asked again until the create's deadline. Anything else: failure. */
  int (*get)(void* user, const char* key, int64_t timeout_nanos, void* value, size_t room, size_t* bytes);
} cohort_rendezvous;

/* Collective: returns when all ranks have come and are connected. *comm is NULL on failure. */
/* Ranks that mpirun started; calls MPI_Init_thread where the program did not. COHORT_UNIMPLEMENTED without MPI. */
COHORT_API cohort_status cohort_comm_create_mpi(const cohort_comm_options* options, cohort_comm** comm);
/* Ranks that meet in a folder that all see, empty or absent before. */
COHORT_API cohort_status cohort_comm_create_folder(const char* folder, int rank, int size,
                                                   const cohort_comm_options* options, cohort_comm** comm);
COHORT_API cohort_status cohort_comm_create(const cohort_rendezvous* rendezvous,
                                            const cohort_comm_options* options, cohort_comm** comm);
/* A group of one, which needs nobody. */
COHORT_API cohort_status cohort_comm_create_single(cohort_comm** comm);

/* Collective: ranks that say the same color form a group, ordered by (key, rank). Negative color: *group = NULL. The
 * groups may outlive `comm`. */
COHORT_API cohort_status cohort_comm_split(cohort_comm* comm, int color, int key, cohort_comm** group);

/* Waits for what is in flight in the group. NULL is allowed. */
COHORT_API void cohort_comm_free(cohort_comm* comm);

/* -1 for NULL, and for ranks and hosts that are not there. */
COHORT_API int cohort_comm_rank(const cohort_comm* comm);
COHORT_API int cohort_comm_size(const cohort_comm* comm);
COHORT_API int cohort_comm_num_hosts(const cohort_comm* comm);
COHORT_API int cohort_comm_host_of(const cohort_comm* comm, int rank); /* hosts are 0, 1, ... */
COHORT_API int cohort_comm_local_rank(const cohort_comm* comm);        /* among the ranks of its host */
COHORT_API int cohort_comm_local_size(const cohort_comm* comm);

/* ---- Operations in flight ---- */

/* *done = whether cohort_work_wait would return at once. Makes progress as a side effect. */
COHORT_API cohort_status cohort_work_test(cohort_work* work, int* done);
/* Returns when the operation is over, with its status, or after timeout_nanos with COHORT_DEADLINE_EXCEEDED, and then
 * it is still in flight and the buffers belong to it (cohort_work_test tells it from an operation that failed because
 * its peers were late). May be called again. */
COHORT_API cohort_status cohort_work_wait(cohort_work* work, int64_t timeout_nanos);
COHORT_API cohort_status cohort_work_wait_seconds(cohort_work* work, double timeout_seconds);
/* Drops the handle, not the operation. NULL is allowed. */
COHORT_API void cohort_work_free(cohort_work* work);

/* ---- Operations ----
 * Counts are elements; zero is legal everywhere. Arrays of counts have one entry a rank and are not kept. Reductions
 * give the same bits on every rank. */

/* recv[i] = op over ranks of send[i]. In place: send == recv. */
COHORT_API cohort_status cohort_all_reduce(cohort_comm* comm, const void* send, void* recv, size_t count,
                                           cohort_dtype dtype, cohort_reduce_op op, cohort_work** work);
/* The same, but only `root` gets it. In place at the root: send == recv. Elsewhere recv is not looked at. */
COHORT_API cohort_status cohort_reduce(cohort_comm* comm, const void* send, void* recv, size_t count,
                                       cohort_dtype dtype, cohort_reduce_op op, int root, cohort_work** work);
/* send holds the sum of counts in rank order; recv gets counts[rank] reduced elements. Not in place. */
COHORT_API cohort_status cohort_reduce_scatter(cohort_comm* comm, const void* send, void* recv,
                                               const size_t* counts, cohort_dtype dtype, cohort_reduce_op op,
                                               cohort_work** work);
/* send has counts[rank]; recv gets all of them in rank order. In place: send at its own place in recv. */
COHORT_API cohort_status cohort_all_gather(cohort_comm* comm, const void* send, void* recv,
                                           const size_t* counts, cohort_dtype dtype, cohort_work** work);
/* The same, but only `root` gets them. The same counts on all ranks. */
COHORT_API cohort_status cohort_gather(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                                       cohort_dtype dtype, int root, cohort_work** work);
/* send of the root holds the sum of counts in rank order; recv gets counts[rank]. In place at the root: recv at its own
 * place in send. */
COHORT_API cohort_status cohort_scatter(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                                        cohort_dtype dtype, int root, cohort_work** work);
COHORT_API cohort_status cohort_broadcast(cohort_comm* comm, void* buffer, size_t count, cohort_dtype dtype,
                                          int root, cohort_work** work);
/* `count` elements to every rank, in rank order, and as many from each. Not in place, nor the next two. */
COHORT_API cohort_status cohort_all_to_all(cohort_comm* comm, const void* send, void* recv, size_t count,
                                           cohort_dtype dtype, cohort_work** work);
/* send_counts[r] elements to rank r, recv_counts[r] from it, packed in rank order without gaps. */
COHORT_API cohort_status cohort_all_to_all_v(cohort_comm* comm, const void* send, const size_t* send_counts,
                                             void* recv, const size_t* recv_counts, cohort_dtype dtype,
                                             cohort_work** work);
/* The same where every rank knows every count: counts[a * size + b] elements go from rank a to rank b. Sends fewer
 * messages between hosts. */
COHORT_API cohort_status cohort_all_to_all_matrix(cohort_comm* comm, const void* send, void* recv,
                                                  const size_t* counts, cohort_dtype dtype,
                                                  cohort_work** work);
COHORT_API cohort_status cohort_barrier(cohort_comm* comm, cohort_work** work);

/* Matched by (peer, tag), in order among equals; tag >= 0. Sizes must be equal. */
COHORT_API cohort_status cohort_send(cohort_comm* comm, const void* buffer, size_t count, cohort_dtype dtype,
                                     int peer, int tag, cohort_work** work);
COHORT_API cohort_status cohort_recv(cohort_comm* comm, void* buffer, size_t count, cohort_dtype dtype,
                                     int peer, int tag, cohort_work** work);

/* ---- Datatypes: messages whose bytes do not lie together (comm/datatype/README.md) ----
 * Nested strided layouts as MPI describes them, in bytes or in extents of what is inside. All of these make a new
 * handle in
 * *type (NULL on failure); inner handles may be freed at once. COHORT_INVALID_ARGUMENT where a layout is larger than
 * memory, or nested too deep. Handles do not change and may be used by several threads. */

typedef struct cohort_datatype cohort_datatype;

COHORT_API cohort_status cohort_datatype_element(cohort_dtype dtype, cohort_datatype** type);
/* `count` of them, one extent apart. */
COHORT_API cohort_status cohort_datatype_contiguous(size_t count, const cohort_datatype* inner,
                                                    cohort_datatype** type);
/* `count` blocks of `length` inner ones, `stride` inner extents, or bytes, from block to block. */
COHORT_API cohort_status cohort_datatype_vector(size_t count, size_t length, ptrdiff_t stride,
                                                const cohort_datatype* inner, cohort_datatype** type);
COHORT_API cohort_status cohort_datatype_hvector(size_t count, size_t length, ptrdiff_t stride_bytes,
                                                 const cohort_datatype* inner, cohort_datatype** type);
/* `count` blocks of `length` inner ones, at displacements counted in inner extents. */
COHORT_API cohort_status cohort_datatype_indexed_block(size_t count, size_t length,
                                                       const ptrdiff_t* displacements,
                                                       const cohort_datatype* inner, cohort_datatype** type);
/* Part of an array whose last dimension is dense: `subsizes` elements from `starts` on. */
COHORT_API cohort_status cohort_datatype_subarray(size_t num_dimensions, const size_t* sizes,
                                                  const size_t* subsizes, const size_t* starts,
                                                  const cohort_datatype* inner, cohort_datatype** type);
/* Member i: counts[i] of types[i], from offsets[i] bytes on. */
COHORT_API cohort_status cohort_datatype_struct(size_t num_members, const size_t* counts,
                                                const ptrdiff_t* offsets, const cohort_datatype* const* types,
                                                cohort_datatype** type);
/* The same bytes, as if they took `extent` bytes. */
COHORT_API cohort_status cohort_datatype_resized(size_t extent, const cohort_datatype* inner,
                                                 cohort_datatype** type);
/* NULL is allowed. */
COHORT_API void cohort_datatype_free(cohort_datatype* type);

/* The bytes of a message of one of them; bytes from one to the next where several follow each other. 0 for NULL. */
COHORT_API size_t cohort_datatype_bytes(const cohort_datatype* type);
COHORT_API ptrdiff_t cohort_datatype_extent(const cohort_datatype* type);

/* Between the layout over `buffer` and cohort_datatype_bytes dense bytes. */
COHORT_API cohort_status cohort_pack(const void* buffer, const cohort_datatype* type, void* packed);
COHORT_API cohort_status cohort_unpack(const void* packed, const cohort_datatype* type, void* buffer);

/* cohort_send and cohort_recv of `count` of a datatype. The two sides may describe the same bytes differently, or as so
 * many COHORT_U8. */
COHORT_API cohort_status cohort_send_type(cohort_comm* comm, const void* buffer, size_t count,
                                          const cohort_datatype* type, int peer, int tag, cohort_work** work);
COHORT_API cohort_status cohort_recv_type(cohort_comm* comm, void* buffer, size_t count,
                                          const cohort_datatype* type, int peer, int tag, cohort_work** work);

/* ---- Tokens of a mixture of experts ----
 * Each token, a row of `width` elements, goes to the ranks of its experts and crosses to each host at most once; what
 * these make of it comes back as one sum. */

typedef struct cohort_token_routing cohort_token_routing;

/* Collective. experts[t * k + j] is the j-th expert of token t, -1 for none; weights, as many, travel with them (NULL:
 * ones). rank_of_expert has the rank of each expert, the same on all ranks, as is k. An edit of the group ends the
 * routing, which must be freed before the group. */
COHORT_API cohort_status cohort_route_tokens(cohort_comm* comm, const int32_t* experts, const float* weights,
                                             size_t num_tokens, int k, const int32_t* rank_of_expert,
                                             size_t num_experts, cohort_token_routing** routing);
/* NULL is allowed. */
COHORT_API void cohort_token_routing_free(cohort_token_routing* routing);

/* Rows that a dispatch brings to this rank: by source rank, and for each in the order of its tokens. 0 for NULL. */
COHORT_API size_t cohort_token_routing_received(const cohort_token_routing* routing);
/* An expert of this rank that wants a row, and how much it counts. */
typedef struct cohort_routed_expert {
  int32_t expert;
  float weight;
} cohort_routed_expert;
typedef struct cohort_routed_row {
  int32_t source;                      /* the rank it is from */
  int32_t token;                       /* its number there */
  size_t num_experts;                  /* of its experts, those on this rank */
  const cohort_routed_expert* experts; /* live as long as the routing */
} cohort_routed_row;
COHORT_API cohort_status cohort_token_routing_row(const cohort_token_routing* routing, size_t row,
                                                  cohort_routed_row* routed);

/* received[row] = tokens[t]. Not in place, nor the next. */
COHORT_API cohort_status cohort_token_dispatch(cohort_token_routing* routing, const void* tokens,
                                               void* received, size_t width, cohort_dtype dtype,
                                               cohort_work** work);
/* tokens[t] = the sum of what the ranks of its experts have in `received` for it; zero where it went nowhere. */
COHORT_API cohort_status cohort_token_combine(cohort_token_routing* routing, const void* received,
                                              void* tokens, size_t width, cohort_dtype dtype,
                                              cohort_work** work);

/* ---- Edits of a live group (comm/membership/README.md says what is guaranteed) ---- */

/* Equal on all ranks that call the edit, but for `leave`. Fill with COHORT_EDIT_OPTIONS_INIT; NULL stands for it. */
typedef struct cohort_edit_options {
  size_t struct_size;
  int64_t
      patience_nanos; /* members that do not come for so long are taken to be lost; 0: the group's timeout */
  int quorum;         /* go on only with a majority; else COHORT_FAILED_PRECONDITION */
  int leave;          /* this rank goes: its rank is -1 afterwards, and the handle is only good for freeing */
  int replace;        /* newcomers take the ranks of those who go */
  int at_least;       /* newcomers to wait for, and to take in at most; at_most 0: as many as there are */
  int at_most;
} cohort_edit_options;
#define COHORT_EDIT_OPTIONS_INIT \
  { sizeof(cohort_edit_options), 0, 0, 0, 0, 0, 0 }

/* The survivors agree who is lost and go on without, ranks renumbered in the old order. Every member calls it, after an
 * error or at a point that all know. */
COHORT_API cohort_status cohort_comm_shrink(cohort_comm* comm, const cohort_edit_options* options);
/* The same, and takes in processes that call cohort_comm_join_folder with this folder. */
COHORT_API cohort_status cohort_comm_grow_folder(cohort_comm* comm, const char* folder,
                                                 const cohort_edit_options* options);
/* Waits until a live group takes this process in. */
COHORT_API cohort_status cohort_comm_join_folder(const char* folder, const cohort_comm_options* options,
                                                 cohort_comm** comm);
/* Ends what is in flight in this group on all its members with COHORT_UNAVAILABLE and this reason, and what is started
 * afterwards, until the next shrink or grow. */
COHORT_API cohort_status cohort_comm_abort(cohort_comm* comm, const char* reason);
/* How often the group was edited. */
COHORT_API uint32_t cohort_comm_epoch(const cohort_comm* comm);
/* members[rank] = the number of that rank's process for the life of the world, which messages of errors name: edits
 * renumber the ranks, and a number is not used again. `members` has room for `room` of them; COHORT_INVALID_ARGUMENT
 * where these are fewer than cohort_comm_size(), and nothing is written then. */
COHORT_API cohort_status cohort_comm_members(const cohort_comm* comm, int* members, int room);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* COHORT_COMM_C_COHORT_COMM_H_ */
