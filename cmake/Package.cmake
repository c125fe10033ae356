# The installed package: find_package(cohort COMPONENTS comm) gives cohort::comm, and so on for each room. Every room
# has an export file of its own, so that who wants comm alone needs none of gRPC, oneDNN and the rest.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/cohort)
foreach(room proto comm nccl runtime cuda service cluster moe parallel serving)
  install(TARGETS cohort_${room} EXPORT cohort-${room}-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${room})
  install(EXPORT cohort-${room}-targets NAMESPACE cohort:: DESTINATION ${package_dir} COMPONENT ${room})
  if(NOT room MATCHES "^(proto|nccl|cuda|service|cluster)$")  # headers of nccl come with comm, of the next three with runtime
    install(DIRECTORY ${PROJECT_SOURCE_DIR}/${room}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cohort/${room}
      COMPONENT ${room} FILES_MATCHING PATTERN "*.h")
  endif()
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/proto/cohort ${PROJECT_BINARY_DIR}/proto/cohort
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT proto FILES_MATCHING PATTERN "*.proto" PATTERN "*.pb.h")

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/cohort-config.cmake.in
  ${PROJECT_BINARY_DIR}/cohort-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cohort-config-version.cmake COMPATIBILITY SameMinorVersion)
# Part of every component: each can be installed alone.
foreach(room proto comm nccl runtime cuda service cluster moe parallel serving)
  install(FILES ${PROJECT_BINARY_DIR}/cohort-config.cmake ${PROJECT_BINARY_DIR}/cohort-config-version.cmake
    ${CMAKE_CURRENT_LIST_DIR}/FindOneDnn.cmake
    DESTINATION ${package_dir} COMPONENT ${room})
endforeach()
