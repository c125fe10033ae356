// MPI_Init and MPI_Finalize.
#include <mpi.h>

#include "comm/interposer/session.h"

using cohort::comm::interposer::Session;

extern "C" {

int MPI_Init(int* argc, char*** argv) {
  const int code = PMPI_Init(argc, argv);
  if (code == MPI_SUCCESS) Session::Begin();
  return code;
}

int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  const int code = PMPI_Init_thread(argc, argv, required, provided);
  if (code == MPI_SUCCESS) Session::Begin();
  return code;
}

int MPI_Finalize(void) {
  Session::End();
  return PMPI_Finalize();
}

}  // extern "C"
