# What the transport mpi loads when it is used: a shared object that is linked with MPI and with
# nothing of Concord. Without MPI everything else is built.
include(GNUInstallDirs)
set_source_files_properties(concord/net/mpi_transport.cc PROPERTIES
  COMPILE_DEFINITIONS CONCORD_LIBRARY_FOLDER="${CMAKE_INSTALL_LIBDIR}")

set(MPI_CXX_SKIP_MPICXX TRUE)
find_package(MPI QUIET COMPONENTS CXX)
if(MPI_CXX_FOUND)
  add_library(concord_mpi MODULE concord/net/mpi/functions.cc)
  target_include_directories(concord_mpi PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(concord_mpi PRIVATE MPI::MPI_CXX)
  install(TARGETS concord_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/concord)
else()
  message(STATUS "The transport mpi is not built: there is no MPI (Debian: libopenmpi-dev)")
endif()
