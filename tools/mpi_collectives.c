/* An MPI program that knows nothing of Cohort: times MPI's blocking collectives, for tools/compare_interposer.
 *
 *   mpi_collectives SECONDS BYTES...
 *
 * Rank 0 prints a line for each collective and size: its name, the bytes of one rank's largest buffer, and the median of
 * the seconds of a call, of which each is that of the slowest rank. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kAllReduce, kReduceScatterBlock, kAllGather, kAllToAll, kScatter, kBroadcast, kNumCalls };
static const char* const kNames[kNumCalls] = {
    "allreduce", "reduce_scatter_block", "allgather", "alltoall", "scatter", "bcast"};

static void call(int which, const char* send, char* recv, int bytes, int ranks) {
  const int part = bytes / ranks / 4 * 4, whole = part * ranks;
  switch (which) {
    case kAllReduce:
      MPI_Allreduce(send, recv, bytes / 4, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      break;
    case kReduceScatterBlock:
      MPI_Reduce_scatter_block(send, recv, part / 4, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      break;
    case kAllGather:
      MPI_Allgather(send, part, MPI_BYTE, recv, part, MPI_BYTE, MPI_COMM_WORLD);
      break;
    case kAllToAll:
      MPI_Alltoall(send, part, MPI_BYTE, recv, part, MPI_BYTE, MPI_COMM_WORLD);
      break;
    case kScatter:
      MPI_Scatter(send, part, MPI_BYTE, recv, part, MPI_BYTE, 0, MPI_COMM_WORLD);
      break;
    default:
      MPI_Bcast(recv, whole, MPI_BYTE, 0, MPI_COMM_WORLD);
  }
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* The median of `runs` calls, on rank 0. */
static double median(int which, const char* send, char* recv, int bytes, int ranks, int runs) {
  double *mine = malloc(sizeof(double) * (size_t)runs), *slowest = malloc(sizeof(double) * (size_t)runs),
         result;
  int run;
  if (mine == NULL || slowest == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
  PMPI_Barrier(MPI_COMM_WORLD);
  for (run = 0; run < runs; ++run) {
    const double begin = MPI_Wtime();
    call(which, send, recv, bytes, ranks);
    mine[run] = MPI_Wtime() - begin;
  }
  PMPI_Reduce(mine, slowest, runs, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  qsort(slowest, (size_t)runs, sizeof(double), by_value);
  result = slowest[runs / 2];
  free(mine);
  free(slowest);
  return result;
}

int main(int argc, char** argv) {
  int ranks, rank, which, at, most = 0;
  char *send, *recv;
  MPI_Init(&argc, &argv);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  for (at = 2; at < argc; ++at) most = atoi(argv[at]) > most ? atoi(argv[at]) : most;
  if (most < 4 * ranks || atof(argv[1]) <= 0) {
    if (rank == 0)
      fprintf(stderr, "mpi_collectives SECONDS BYTES..., of at least four bytes for each rank\n");
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  send = calloc((size_t)most, 1), recv = calloc((size_t)most, 1);
  if (send == NULL || recv == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
  for (which = 0; which < kNumCalls; ++which) {
    for (at = 2; at < argc; ++at) {
      const int bytes = atoi(argv[at]);
      double seconds = median(which, send, recv, bytes, ranks, 20);
      int runs = (int)(atof(argv[1]) / (seconds + 1e-7));
      runs = runs < 20 ? 20 : runs > 100000 ? 100000 : runs;
      PMPI_Bcast(&runs, 1, MPI_INT, 0, MPI_COMM_WORLD);
      seconds = median(which, send, recv, bytes, ranks, runs);
      if (rank == 0) printf("%s %d %.9f\n", kNames[which], bytes, seconds);
    }
  }
  free(send);
  free(recv);
  MPI_Finalize();
  return 0;
}
