/* An MPI program that knows nothing of Cohort: every collective that libcohort_mpi.so may take over, with types, sizes,
 * places and communicators of all kinds. Prints a line a case, from what all ranks have received: integers as a
 * checksum, floats with six digits. Run with and without the preload, it must print the same. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int world_rank;

static void fail(const char* what) {
  fprintf(stderr, "rank %d: %s\n", world_rank, what);
  MPI_Abort(MPI_COMM_WORLD, 3);
}

static void* room(size_t bytes) {
  void* memory = malloc(bytes + 1);
  if (memory == NULL) fail("no memory");
  memset(memory, 0x5a, bytes + 1);
  return memory;
}

/* Every rank's bytes go into one number, which rank 0 of the communicator prints. */
static void print_bytes(const char* what, const void* data, size_t bytes, MPI_Comm comm) {
  const unsigned char* byte = data;
  uint64_t own = 1469598103934665603u, all = 0;
  int rank;
  size_t i;
  MPI_Comm_rank(comm, &rank);
  for (i = 0; i < bytes; ++i) own = (own ^ byte[i]) * 1099511628211u;
  own *= (uint64_t)(2 * rank + 1);
  MPI_Reduce(&own, &all, 1, MPI_UINT64_T, MPI_BXOR, 0, comm);
  if (rank == 0) printf("%s %016llx\n", what, (unsigned long long)all);
}

/* The same bits on every rank, then six digits of them. */
static void print_doubles(const char* what, const double* data, int count, MPI_Comm comm) {
  double sum = 0, most = 0;
  uint64_t own = 1469598103934665603u, least, greatest;
  int rank, i;
  MPI_Comm_rank(comm, &rank);
  for (i = 0; i < count; ++i) {
    uint64_t bits;
    memcpy(&bits, &data[i], sizeof(bits));
    own = (own ^ bits) * 1099511628211u;
    sum += data[i];
    if (data[i] > most) most = data[i];
  }
  MPI_Allreduce(&own, &least, 1, MPI_UINT64_T, MPI_BAND, comm);
  MPI_Allreduce(&own, &greatest, 1, MPI_UINT64_T, MPI_BOR, comm);
  if (least != greatest) fail("ranks have different bits");
  if (rank == 0) printf("%s %.6e %.6e\n", what, sum, most);
}

static void fill(int32_t* data, int count, int rank) {
  int i;
  for (i = 0; i < count; ++i) data[i] = (int32_t)((uint32_t)(i + 7) * 2654435761u >> 3) + 1000 * rank;
}

static void concat(void* in, void* inout, int* count, MPI_Datatype* type) { /* not commutative: 10 a + b */
  const int32_t* a = in;
  int32_t* b = inout;
  int i;
  (void)type;
  for (i = 0; i < *count; ++i) b[i] = (int32_t)((uint32_t)a[i] * 10u + (uint32_t)b[i]);
}

static void reductions(const char* where, MPI_Comm comm, int count) {
  const MPI_Op ops[] = {MPI_SUM, MPI_PROD, MPI_MIN, MPI_MAX, MPI_BXOR};
  int rank, size, i, op, root;
  int32_t *in, *out;
  double *din, *dout;
  int* counts;
  MPI_Op user;
  char name[128];
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  in = room(sizeof(*in) * (size_t)count * size);
  out = room(sizeof(*out) * (size_t)count * size);
  din = room(sizeof(*din) * (size_t)count);
  dout = room(sizeof(*dout) * (size_t)count);
  counts = room(sizeof(*counts) * (size_t)size);
  fill(in, count * size, rank);
  for (i = 0; i < count; ++i) din[i] = 1.0 / (1 + i % 1000) + rank;
  for (op = 0; op < 5; ++op) {
    MPI_Allreduce(in, out, count, MPI_INT, ops[op], comm);
    snprintf(name, sizeof(name), "%s allreduce op %d x %d", where, op, count);
    print_bytes(name, out, sizeof(*out) * (size_t)count, comm);
    MPI_Allreduce(in, out, count, MPI_UNSIGNED, ops[op], comm);
    print_bytes("  unsigned", out, sizeof(*out) * (size_t)count, comm);
    memcpy(out, in, sizeof(*in) * (size_t)count);
    MPI_Allreduce(MPI_IN_PLACE, out, count / 2, MPI_LONG, ops[op], comm);
    print_bytes("  in place, long", out, sizeof(*out) * (size_t)count, comm);
    MPI_Allreduce(in, out, count, MPI_UINT8_T, ops[op], comm);
    print_bytes("  bytes", out, (size_t)count, comm);
  }
  MPI_Allreduce(din, dout, count, MPI_DOUBLE, MPI_SUM, comm);
  print_doubles("  doubles", dout, count, comm);
  MPI_Allreduce(din, dout, count, MPI_DOUBLE, MPI_MAX, comm);
  print_doubles("  doubles, most", dout, count, comm);
  MPI_Op_create(concat, 0, &user);
  MPI_Allreduce(in, out, count, MPI_INT, user, comm);
  print_bytes("  own operation", out, sizeof(*out) * (size_t)count, comm);
  MPI_Op_free(&user);
  for (root = 0; root < size; ++root) {
    memset(out, 0x11, sizeof(*out) * (size_t)count);
    MPI_Reduce(in, out, count, MPI_INT, MPI_SUM, root, comm);
    print_bytes("  reduce", out, sizeof(*out) * (size_t)count, comm);
    memcpy(out, in, sizeof(*in) * (size_t)count);
    MPI_Reduce(rank == root ? MPI_IN_PLACE : out, rank == root ? out : NULL, count, MPI_INT, MPI_MAX, root,
               comm);
    print_bytes("  reduce in place", out, sizeof(*out) * (size_t)count, comm);
  }
  memset(out, 0x22, sizeof(*out) * (size_t)count * size);
  MPI_Reduce_scatter_block(in, out, count, MPI_INT, MPI_SUM, comm);
  print_bytes("  reduce-scatter block", out, sizeof(*out) * (size_t)count, comm);
  memcpy(out, in, sizeof(*in) * (size_t)count * size);
  MPI_Reduce_scatter_block(MPI_IN_PLACE, out, count, MPI_INT, MPI_SUM, comm);
  print_bytes("  in place", out, sizeof(*out) * (size_t)count, comm);
  for (i = 0; i < size; ++i) counts[i] = i == 0 ? 0 : count + i - size;
  memset(out, 0x33, sizeof(*out) * (size_t)count);
  MPI_Reduce_scatter(in, out, counts, MPI_INT, MPI_SUM, comm);
  print_bytes("  reduce-scatter, uneven", out, sizeof(*out) * (size_t)counts[rank], comm);
  memcpy(out, in, sizeof(*in) * (size_t)count * size);
  MPI_Reduce_scatter(MPI_IN_PLACE, out, counts, MPI_INT, MPI_SUM, comm);
  print_bytes("  uneven, in place", out, sizeof(*out) * (size_t)counts[rank], comm);
  free(in), free(out), free(din), free(dout), free(counts);
}

static void moves(const char* where, MPI_Comm comm, int count) {
  int rank, size, i, root;
  int32_t *in, *out;
  int *counts, *places, *back, *back_places;
  size_t bytes;
  MPI_Datatype strided, pair;
  char name[128];
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  bytes = 2 * sizeof(*in) * (size_t)(count + size) * size;
  in = room(bytes);
  out = room(bytes);
  counts = room(4 * sizeof(int) * (size_t)size);
  places = counts + size, back = places + size, back_places = back + size;
  fill(in, (int)(bytes / sizeof(*in)), rank);
  /* Every second integer; with it, `count` of them span 2 count integers. */
  MPI_Type_vector(1, 1, 2, MPI_INT, &pair);
  MPI_Type_create_resized(pair, 0, 2 * sizeof(int32_t), &strided);
  MPI_Type_commit(&strided);

  snprintf(name, sizeof(name), "%s bcast x %d", where, count);
  for (root = 0; root < size; ++root) {
    memcpy(out, in, bytes);
    MPI_Bcast(out, count, MPI_INT, root, comm);
    print_bytes(name, out, bytes, comm);
    memcpy(out, in, bytes); /* the root's type has gaps, the others' has none: the same data */
    MPI_Bcast(out, count, rank == root ? strided : MPI_INT, root, comm);
    print_bytes("  bcast from a strided type", out, bytes, comm);
    memset(out, 0x44, bytes);
    MPI_Gather(in, count, MPI_INT, out, count, MPI_INT, root, comm);
    print_bytes("  gather", out, bytes, comm);
    memset(out, 0x44, bytes);
    MPI_Gather(in, count, MPI_INT, out, count, strided, root, comm);
    print_bytes("  gather into a strided type", out, bytes, comm);
    memcpy(out, in, bytes);
    MPI_Gather(rank == root ? MPI_IN_PLACE : out, count, MPI_INT, out, count, MPI_INT, root, comm);
    print_bytes("  gather in place", out, bytes, comm);
    memset(out, 0x44, bytes);
    MPI_Scatter(in, count, MPI_INT, out, count, MPI_INT, root, comm);
    print_bytes("  scatter", out, bytes, comm);
    memset(out, 0x44, bytes);
    MPI_Scatter(in, count, strided, rank == root ? MPI_IN_PLACE : out, count, MPI_INT, root, comm);
    print_bytes("  scatter in place, strided", out, bytes, comm);
  }
  memset(out, 0x44, bytes);
  MPI_Allgather(in, count, MPI_INT, out, count, MPI_INT, comm);
  print_bytes("  allgather", out, bytes, comm);
  memset(out, 0x44, bytes);
  MPI_Allgather(in, count, strided, out, count, rank % 2 ? strided : MPI_INT, comm);
  print_bytes("  allgather, strided here and there", out, bytes, comm);
  memcpy(out, in, bytes);
  MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out, count, MPI_INT, comm);
  print_bytes("  allgather in place", out, bytes, comm);
  for (i = 0; i < size; ++i) counts[i] = count - i, places[i] = (size - 1 - i) * (count + 1);
  memset(out, 0x44, bytes);
  MPI_Allgatherv(in, counts[rank], MPI_INT, out, counts, places, MPI_INT, comm);
  print_bytes("  allgatherv, backwards", out, bytes, comm);
  memcpy(out, in, bytes);
  MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_INT, out, counts, places, MPI_INT, comm);
  print_bytes("  allgatherv in place", out, bytes, comm);
  memset(out, 0x44, bytes);
  MPI_Alltoall(in, count, MPI_INT, out, count, MPI_INT, comm);
  print_bytes("  alltoall", out, bytes, comm);
  memset(out, 0x44, bytes);
  MPI_Alltoall(in, count, MPI_INT, out, count, strided, comm);
  print_bytes("  alltoall into a strided type", out, bytes, comm);
  memcpy(out, in, bytes);
  MPI_Alltoall(MPI_IN_PLACE, 0, MPI_INT, out, count, MPI_INT, comm);
  print_bytes("  alltoall in place", out, bytes, comm);
  for (i = 0; i < size; ++i) { /* rank a sends (a + 2 b) % 3 * count / 3 to b */
    counts[i] = (rank + 2 * i) % 3 * (count / 3), places[i] = (size - 1 - i) * count;
    back[i] = (i + 2 * rank) % 3 * (count / 3), back_places[i] = i * (count + 1);
  }
  memset(out, 0x44, bytes);
  MPI_Alltoallv(in, counts, places, MPI_INT, out, back, back_places, MPI_INT, comm);
  print_bytes("  alltoallv", out, bytes, comm);
  for (i = 0; i < size; ++i) counts[i] = count / (1 + rank + i), places[i] = i * count;
  memcpy(out, in, bytes);
  MPI_Alltoallv(MPI_IN_PLACE, NULL, NULL, MPI_INT, out, counts, places, MPI_INT, comm);
  print_bytes("  alltoallv in place", out, bytes, comm);
  MPI_Type_free(&strided), MPI_Type_free(&pair);
  free(in), free(out), free(counts);
}

/* A rank that waits in a collective must still send what it has begun to send. */
static void progress(int count) {
  int size, i;
  char* data = room((size_t)count);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  memset(data, world_rank, (size_t)count);
  if (world_rank == 0) {
    MPI_Request* requests = room(sizeof(*requests) * (size_t)size);
    for (i = 1; i < size; ++i) MPI_Isend(data, count, MPI_CHAR, i, 9, MPI_COMM_WORLD, &requests[i - 1]);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Waitall(size - 1, requests, MPI_STATUSES_IGNORE);
    free(requests);
  } else {
    MPI_Recv(data, count, MPI_CHAR, 0, 9, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  print_bytes("isend, barrier, wait", data, (size_t)count, MPI_COMM_WORLD);
  free(data);
}

int main(int argc, char** argv) {
  const int counts[] = {10, 3000, 70000};
  int size, i, code;
  MPI_Comm half, twin, backwards;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (i = 0; i < 3; ++i) {
    reductions("world", MPI_COMM_WORLD, counts[i]);
    moves("world", MPI_COMM_WORLD, counts[i]);
  }
  /* Halves first meet alone: nothing of theirs is collective over the world. */
  MPI_Comm_split(MPI_COMM_WORLD, world_rank < size / 2, 0, &half);
  if (world_rank < size / 2) reductions("half", half, 3000);
  moves("self", MPI_COMM_SELF, 3000);
  if (world_rank >= size / 2) moves("half", half, 3000);
  MPI_Comm_free(&half);
  for (i = 0; i < 20; ++i) { /* handles are used again */
    MPI_Comm_split(MPI_COMM_WORLD, 0, i % 2 ? -world_rank : world_rank, &backwards);
    MPI_Comm_dup(backwards, &twin);
    if (i < 4) reductions("backwards", twin, 3000);
    MPI_Barrier(backwards);
    MPI_Comm_free(&backwards);
    if (i < 4) moves("twin", twin, 3000);
    MPI_Comm_free(&twin);
  }
  progress(1 << 20);
  /* Wrong arguments are MPI's to report. */
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  code = MPI_Bcast(&size, 1, MPI_INT, size, MPI_COMM_WORLD);
  MPI_Error_class(code, &code);
  if (world_rank == 0) printf("a root beyond the last: %s\n", code == MPI_ERR_ROOT ? "MPI_ERR_ROOT" : "?");
  if (size > 1 && argc > 1) reductions("once more", MPI_COMM_WORLD, 10);
  MPI_Finalize();
  return 0;
}
