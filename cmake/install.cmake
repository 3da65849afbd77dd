# What `cmake --install` puts where: the library with its headers and CMake package, the command
# with its man page and completions.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS concord EXPORT concordTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS concord_command DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY concord DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE
        # What is for the tests, and for kernels, which include the libraries behind them.
        PATTERN "test_*.h" EXCLUDE PATTERN "*_check.h" EXCLUDE PATTERN "fuzz_main.h" EXCLUDE
        REGEX "/kernels/cpu$" EXCLUDE REGEX "/net/mpi$" EXCLUDE)
install(FILES docs/concord.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/concord)
configure_package_config_file(cmake/concordConfig.cmake.in concordConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(concordConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT concordTargets NAMESPACE concord:: DESTINATION ${package_dir})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/concordConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/concordConfigVersion.cmake DESTINATION ${package_dir})

# Each shell looks for a file of its own name for the command.
set(completions ${CMAKE_CURRENT_BINARY_DIR}/completions)
foreach(shell bash zsh fish)
  add_custom_command(TARGET concord_command POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E make_directory ${completions}
    COMMAND concord_command completion ${shell} > ${completions}/${shell} VERBATIM)
endforeach()
install(FILES ${completions}/bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME concord)
install(FILES ${completions}/zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions
        RENAME _concord)
install(FILES ${completions}/fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d
        RENAME concord.fish)
