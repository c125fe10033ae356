# NCCL under device communicators, where it and the CUDA toolkit are found: COHORT_HAVE_NCCL and the target nccl::nccl.
#   COHORT_NCCL=AUTO  where the CUDA device is built and NCCL is found
#   COHORT_NCCL=ON    or stop, saying what is missing
#   COHORT_NCCL=OFF   without
set(COHORT_NCCL AUTO CACHE STRING "NCCL under device communicators: AUTO, ON or OFF")
set_property(CACHE COHORT_NCCL PROPERTY STRINGS AUTO ON OFF)

set(COHORT_HAVE_NCCL FALSE)
set(nccl_why "")
if(NOT COHORT_NCCL MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "COHORT_NCCL is '${COHORT_NCCL}'; it can be AUTO, ON or OFF")
elseif(COHORT_NCCL STREQUAL "OFF")
  set(nccl_why "COHORT_NCCL is OFF")
elseif(NOT COHORT_HAVE_CUDA)
  set(nccl_why "the CUDA device is not built")
else()
  find_package(Nccl QUIET)  # cmake/FindNccl.cmake
  if(NOT Nccl_FOUND)
    set(nccl_why "nccl.h or libnccl was not found; NCCL_INCLUDE_DIR and NCCL_LIBRARY say where they are")
  elseif(NCCL_VERSION LESS 21400)
    set(nccl_why "NCCL ${NCCL_VERSION} has no communicators that do not block; 2.14 is the first that has")
  else()
    set(COHORT_HAVE_NCCL TRUE)
  endif()
endif()

if(COHORT_HAVE_NCCL)
  message(STATUS "NCCL: ${NCCL_VERSION}, ${NCCL_LIBRARY}")
elseif(COHORT_NCCL STREQUAL "ON")
  message(FATAL_ERROR "COHORT_NCCL=ON, but ${nccl_why}")
else()
  message(STATUS "NCCL: not built (${nccl_why})")
endif()
