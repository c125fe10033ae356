# One room is one folder, one library target cohort_<room> (exported as cohort::<room>), and the test
# executable test_<room> made of tests/<room>/**/*_test.cc.

# cohort_room(<room> [FOLDER folders...] [WITHOUT folders...] [PUBLIC targets...] [PRIVATE targets...])
# FOLDER: a part of a room (one folder or more) that is a library of its own, with dependencies that the room itself must not have;
# WITHOUT: the parts that the room leaves out.
function(cohort_room room)
  cmake_parse_arguments(ARG "" "" "FOLDER;WITHOUT;PUBLIC;PRIVATE" ${ARGN})
  set(patterns)
  foreach(folder IN LISTS ARG_FOLDER)
    list(APPEND patterns ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cc ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cu)
  endforeach()
  if(NOT ARG_FOLDER)
    set(patterns ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${patterns})
  foreach(part IN LISTS ARG_WITHOUT)
    list(FILTER sources EXCLUDE REGEX "^${CMAKE_CURRENT_SOURCE_DIR}/${part}/")
  endforeach()
  if(NOT sources)  # a room of headers only is a library too
    set(sources ${CMAKE_CURRENT_BINARY_DIR}/empty.cc)
    file(TOUCH ${sources})
  endif()
  add_library(cohort_${room} STATIC ${sources})
  add_library(cohort::${room} ALIAS cohort_${room})
  set_target_properties(cohort_${room} PROPERTIES EXPORT_NAME ${room} UNITY_BUILD ${COHORT_UNITY}
    UNITY_BUILD_BATCH_SIZE ${COHORT_UNITY_BATCH})
  target_include_directories(cohort_${room} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/cohort>)
  target_link_libraries(cohort_${room} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE}
    $<BUILD_INTERFACE:cohort_options>)
endfunction()

# cohort_room_tests(<room> [LINK targets...] [TIMEOUT seconds])
# Never in batches (COHORT_UNITY): tests call what is theirs alone Case and kTolerance, and should.
function(cohort_room_tests room)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LINK" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(COHORT_SANITIZE)  # which makes a test several times as long
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(test_${room} ${sources})
  target_link_libraries(test_${room} PRIVATE cohort_${room} cohort_test_support ${ARG_LINK}
    GTest::gtest GTest::gmock GTest::gtest_main cohort_options)
  gtest_discover_tests(test_${room} TEST_PREFIX "${room}/" DISCOVERY_TIMEOUT 120
    PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
