# How every target of the project is compiled. Third-party headers are SYSTEM includes, so warnings are ours.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 99)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_VISIBILITY_PRESET default)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_library(cohort_options INTERFACE)
target_compile_options(cohort_options INTERFACE
  "$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Werror;-Wno-unused-parameter>"
  "$<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor;-Woverloaded-virtual>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror,-Wno-unused-parameter>")
if(COHORT_SANITIZE)
  add_compile_options(-fsanitize=${COHORT_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${COHORT_SANITIZE})
  # The checks that sanitizers add lead the warnings of GCC 12 astray (its manual, on -fsanitize: "We recommend against
  # combining -Werror and the use of sanitizers"); the other builds stop at every warning.
  target_compile_options(cohort_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Wno-error>)
endif()

# Parsing the headers of the standard library, Abseil and gRPC is most of compiling a file. ON compiles neighbouring files
# of a room together: a whole build takes half of the processor time, one edited file more. Who edits sets it OFF.
option(COHORT_UNITY "Compile the files of a room in batches" ON)
set(COHORT_UNITY_BATCH 10 CACHE STRING "Files of a batch")
