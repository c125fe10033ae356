/* A C99 program outside the tree that embeds the communication core. As `embeds_c FOLDER RANK SIZE` it meets the other
 * ranks in the folder, as `embeds_c` under mpirun through MPI, as `embeds_c board FOLDER RANK SIZE` through callbacks of
 * its own. */
#include <cohort/comm/c/cohort_comm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 1000

static void require(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "%s: %s\n", what, cohort_last_message());
  exit(1);
}

/* A board of the program's own: a key is a file, written aside and renamed. */
static void path_of(const char* folder, const char* key, char* path, size_t room) {
  char* at;
  snprintf(path, room, "%s/%s", folder, key);
  for (at = path + strlen(folder) + 1; *at != '\0'; ++at) {
    if (*at == '/') *at = '-';
  }
}

static int put(void* user, const char* key, const void* value, size_t bytes) {
  char path[512], draft[520];
  FILE* file;
  path_of(user, key, path, sizeof(path));
  snprintf(draft, sizeof(draft), "%s.draft", path);
  file = fopen(draft, "wb");
  if (file == NULL) return 1;
  if (fwrite(value, 1, bytes, file) != bytes || fclose(file) != 0) return 1;
  return rename(draft, path) == 0 ? 0 : 1;
}

static int get(void* user, const char* key, int64_t timeout_nanos, void* value, size_t room, size_t* bytes) {
  char path[512];
  char all[65536];
  FILE* file;
  (void)timeout_nanos; /* need not wait: it is asked again */
  path_of(user, key, path, sizeof(path));
  file = fopen(path, "rb");
  if (file == NULL) return COHORT_DEADLINE_EXCEEDED;
  *bytes = fread(all, 1, sizeof(all), file);
  fclose(file);
  if (room > 0) memcpy(value, all, room < *bytes ? room : *bytes);
  return 0;
}

int main(int argc, char** argv) {
  cohort_comm_options options = COHORT_COMM_OPTIONS_INIT;
  cohort_comm *comm = NULL, *alone = NULL;
  cohort_work* work = NULL;
  float mine[COUNT], sum[COUNT];
  int32_t got[2] = {0, 0}, told[2] = {7, 8};
  size_t counts[64];
  cohort_status status;
  int i, rank, size, done = 0;
  int members[64];

  require(cohort_comm_api_version() >= COHORT_COMM_API_VERSION, "the library is older than the header");
  options.timeout_nanos = 20000000000;
  if (argc == 4) {
    status = cohort_comm_create_folder(argv[1], atoi(argv[2]), atoi(argv[3]), &options, &comm);
  } else if (argc == 5) {
    cohort_rendezvous board;
    board.struct_size = sizeof(board), board.user = argv[2], board.put = put, board.get = get;
    board.rank = atoi(argv[3]), board.size = atoi(argv[4]);
    status = cohort_comm_create(&board, &options, &comm);
  } else {
    status = cohort_comm_create_mpi(&options, &comm);
  }
  require(status == COHORT_OK, "create");
  rank = cohort_comm_rank(comm), size = cohort_comm_size(comm);
  require(size >= 2 && size <= 64 && cohort_comm_local_size(comm) == size, "ranks of one host");

  require(cohort_comm_epoch(comm) == 0 && cohort_comm_members(comm, members, 64) == COHORT_OK, "members");
  for (i = 0; i < size; ++i) require(members[i] == i, "numbers as they were created");
  require(cohort_comm_members(comm, members, size - 1) == COHORT_INVALID_ARGUMENT,
          "room for too few members");
  require(cohort_comm_members(comm, NULL, size) == COHORT_INVALID_ARGUMENT, "members to NULL");
  require(cohort_comm_members(NULL, members, 64) == COHORT_INVALID_ARGUMENT, "members of NULL");

  for (i = 0; i < COUNT; ++i) mine[i] = (float)(rank + 1);
  require(cohort_all_reduce(comm, mine, sum, COUNT, COHORT_F32, COHORT_SUM, &work) == COHORT_OK,
          "all-reduce");
  require(cohort_work_wait_seconds(work, 20) == COHORT_OK, "wait");
  require(cohort_work_test(work, &done) == COHORT_OK && done, "test");
  cohort_work_free(work);
  require(sum[0] == (float)(size * (size + 1) / 2) && sum[COUNT - 1] == sum[0], "the sum");

  /* A deadline that passes leaves the operation in flight. */
  if (rank == 0) {
    require(cohort_recv(comm, got, 2, COHORT_I32, 1, 5, &work) == COHORT_OK, "recv");
    require(cohort_work_wait(work, 1000000) == COHORT_DEADLINE_EXCEEDED, "nobody has sent yet");
    require(cohort_last_message()[0] != '\0', "a message");
  }
  require(cohort_barrier(comm, NULL) == COHORT_OK, "barrier");
  if (rank == 1) require(cohort_send(comm, told, 2, COHORT_I32, 0, 5, NULL) == COHORT_OK, "send");
  if (rank == 0) {
    require(cohort_work_wait(work, COHORT_FOREVER) == COHORT_OK && got[1] == 8, "what was sent");
    cohort_work_free(work);
  }

  /* Column 1 of a matrix of three goes to a row. */
  if (size > 1 && rank < 2) {
    const float matrix[6] = {0, 1, 2, 3, 4, 5};
    float row[2] = {0, 0};
    cohort_datatype *real = NULL, *column = NULL;
    require(cohort_datatype_element(COHORT_F32, &real) == COHORT_OK, "an element");
    require(cohort_datatype_vector(2, 1, 3, real, &column) == COHORT_OK, "a column");
    require(cohort_datatype_bytes(column) == sizeof(row) && cohort_datatype_extent(column) == 16, "its size");
    require(cohort_pack(matrix + 1, column, row) == COHORT_OK && row[0] == 1 && row[1] == 4, "packed");
    if (rank == 1) {
      require(cohort_send_type(comm, matrix + 2, 1, column, 0, 6, NULL) == COHORT_OK, "a column sent");
    } else {
      require(cohort_recv_type(comm, row, 2, real, 1, 6, NULL) == COHORT_OK && row[0] == 2 && row[1] == 5,
              "a column received");
    }
    cohort_datatype_free(column);
    require(cohort_datatype_vector(2, 1, 3, NULL, &column) == COHORT_INVALID_ARGUMENT && column == NULL,
            "a datatype of NULL");
    cohort_datatype_free(real);
  }

  /* Errors are values: all of them leave the group as it was. */
  require(cohort_all_reduce(comm, mine, NULL, COUNT, COHORT_F32, COHORT_SUM, NULL) == COHORT_INVALID_ARGUMENT,
          "NULL");
  require(strstr(cohort_last_message(), "null") != NULL, "says so");
  require(cohort_all_reduce(NULL, mine, sum, 1, COHORT_F32, COHORT_SUM, NULL) == COHORT_INVALID_ARGUMENT,
          "no comm");
  require(
      cohort_all_reduce(comm, mine, sum, 1, (cohort_dtype)77, COHORT_SUM, &work) == COHORT_INVALID_ARGUMENT &&
          work == NULL,
      "no such type");
  require(
      cohort_all_reduce(comm, mine, sum, 1, COHORT_F32, (cohort_reduce_op)9, NULL) == COHORT_INVALID_ARGUMENT,
      "no such reduction");
  require(cohort_all_gather(comm, mine, sum, NULL, COHORT_F32, NULL) == COHORT_INVALID_ARGUMENT, "no counts");
  require(cohort_broadcast(comm, mine, 1, COHORT_F32, size, NULL) == COHORT_INVALID_ARGUMENT, "no such root");

  require(cohort_comm_split(comm, rank, 0, &alone) == COHORT_OK && cohort_comm_size(alone) == 1, "split");
  cohort_comm_free(alone);
  for (i = 0; i < size; ++i) counts[i] = 1;
  require(cohort_reduce_scatter(comm, mine, sum, counts, COHORT_F32, COHORT_MAX, NULL) == COHORT_OK &&
              sum[0] == (float)size,
          "reduce-scatter");
  require(cohort_gather(comm, mine, sum, counts, COHORT_F32, 0, NULL) == COHORT_OK, "gather");
  require(rank != 0 || sum[size - 1] == (float)size, "what was gathered");

  /* Tokens: two of each rank, for the experts 0 and 1, which are on the ranks 0 and 1; the second goes to both. */
  {
    int32_t experts[4] = {0, -1, 0, 1};
    float weights[4] = {1.0f, 0.0f, 2.0f, 3.0f}, tokens[2] = {10.0f, 20.0f}, received[128], back[2];
    int32_t rank_of_expert[2] = {0, 1};
    cohort_token_routing* routing = NULL;
    cohort_routed_row row;
    size_t r, rows, expected = rank == 0 ? 2 * (size_t)size : rank == 1 ? (size_t)size : 0;
    require(cohort_route_tokens(comm, experts, weights, 2, 2, rank_of_expert, 2, &routing) == COHORT_OK,
            "route tokens");
    rows = cohort_token_routing_received(routing);
    require(rows == expected, "rows that come");
    require(cohort_token_dispatch(routing, tokens, received, 1, COHORT_F32, NULL) == COHORT_OK, "dispatch");
    for (r = 0; r < rows; ++r) {
      require(cohort_token_routing_row(routing, r, &row) == COHORT_OK && row.num_experts == 1 &&
                  row.experts[0].expert == rank && received[r] == tokens[row.token],
              "a row that came");
      received[r] *= row.experts[0].weight;
    }
    require(cohort_token_routing_row(routing, rows, &row) == COHORT_INVALID_ARGUMENT, "no such row");
    require(cohort_token_combine(routing, received, back, 1, COHORT_F32, NULL) == COHORT_OK, "combine");
    require(back[0] == 10.0f && back[1] == 100.0f, "the weighted sums");
    require(cohort_token_dispatch(NULL, tokens, received, 1, COHORT_F32, NULL) == COHORT_INVALID_ARGUMENT,
            "no routing");
    cohort_token_routing_free(routing);
    cohort_token_routing_free(NULL);
  }
  require(strcmp(cohort_dtype_name(COHORT_BF16), "bf16") == 0 && cohort_dtype_size(COHORT_I64) == 8,
          "data types");
  require(strcmp(cohort_status_name(COHORT_UNAVAILABLE), "UNAVAILABLE") == 0, "status names");
  require(cohort_barrier(comm, NULL) == COHORT_OK, "the last barrier");
  cohort_comm_free(comm);
  cohort_comm_free(NULL);
  if (rank == 0) printf("C: %d ranks\n", size);
  return 0;
}
