# find_package(OneDnn): the imported target `dnnl`. Used by the build and by the installed package alike, because
# Debian's dnnl-config.cmake asks for the OpenCL development files, which nothing here uses.
find_library(DNNL_LIBRARY dnnl)
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp)
mark_as_advanced(DNNL_LIBRARY DNNL_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OneDnn REQUIRED_VARS DNNL_LIBRARY DNNL_INCLUDE_DIR)

if(OneDnn_FOUND AND NOT TARGET dnnl)
  add_library(dnnl UNKNOWN IMPORTED)
  set_target_properties(dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
endif()
