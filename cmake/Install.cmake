# SPDX-License-Identifier: MIT
# What goes where, and how others find it: find_package(cfutures) and pkg-config, both from wherever
# the installed tree is moved to.
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/cfutures")
install(TARGETS cfutures cfutures_static EXPORT cfutures
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT cfutures NAMESPACE cfutures:: FILE cfuturesTargets.cmake DESTINATION ${package_dir})

configure_package_config_file(cmake/cfuturesConfig.cmake.in cfuturesConfig.cmake
    INSTALL_DESTINATION ${package_dir}
    NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(cfuturesConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    "${PROJECT_BINARY_DIR}/cfuturesConfig.cmake" "${PROJECT_BINARY_DIR}/cfuturesConfigVersion.cmake"
    DESTINATION ${package_dir})

# An absolute directory stays as it is; a relative one hangs below the prefix.
cmake_path(APPEND libdir "\${prefix}" "${CMAKE_INSTALL_LIBDIR}")
cmake_path(APPEND includedir "\${prefix}" "${CMAKE_INSTALL_INCLUDEDIR}")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
    set(prefix "${CMAKE_INSTALL_PREFIX}")
else()
    file(RELATIVE_PATH up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig/." "/")
    string(REGEX REPLACE "/$" "" prefix "\${pcfiledir}/${up}")
endif()
configure_file(packaging/cfutures.pc.in cfutures.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/cfutures.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
