# SPDX-License-Identifier: MIT
# Each examples/NN_name.c becomes build/examples/NN_name, linked as a user's program is, and a test that
# compares what it prints where tests/examples/NN_name.expected says what that must be.  What an example
# needs besides the library shows in its #include lines; where that is not installed it is left out.

set(example_modules libcurl libmicrohttpd jansson libturbojpeg)
set(example_libcurl "http_get.h|curl/")
set(example_libmicrohttpd "http_server.h")
set(example_jansson "jansson.h")
set(example_libturbojpeg "image_file.h|turbojpeg.h")

find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
    foreach(module IN LISTS example_modules)
        pkg_check_modules(${module} QUIET IMPORTED_TARGET ${module})
    endforeach()
endif()

function(example_modules_of source ret)
    set(modules "")
    file(STRINGS ${source} includes REGEX "^#include")
    foreach(module IN LISTS example_modules)
        if(includes MATCHES "${example_${module}}")
            list(APPEND modules ${module})
        endif()
    endforeach()
    set(${ret} "${modules}" PARENT_SCOPE)
endfunction()

function(add_example source)
    get_filename_component(name ${source} NAME_WE)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    example_modules_of(${source} modules)
    foreach(module IN LISTS modules)
        if(NOT TARGET PkgConfig::${module})
            message(STATUS "Example ${name} is left out: ${module} is not installed")
            return()
        endif()
    endforeach()
    add_executable(example_${name} ${source})
    list(TRANSFORM modules PREPEND PkgConfig:: OUTPUT_VARIABLE libraries)
    target_link_libraries(example_${name}
        PRIVATE cfutures_build cfutures::cfutures ${libraries} Threads::Threads m)
    if("libmicrohttpd" IN_LIST modules)
        target_sources(example_${name} PRIVATE examples/http_server.c)
    endif()
    set_target_properties(example_${name} PROPERTIES
        OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/examples")
    set(tests "${PROJECT_SOURCE_DIR}/tests/examples")
    if(CFUTURES_BUILD_TESTS AND EXISTS "${tests}/${name}.expected")
        math(EXPR limit "${CFUTURES_TEST_TIMEOUT} - 10")
        cfutures_test(example_${name} LABELS example COMMAND ${CMAKE_COMMAND} -E env
            CHECK_TIMEOUT=${limit} "${tests}/check.sh" $<TARGET_FILE:example_${name}> ${name})
    endif()
endfunction()

file(GLOB examples CONFIGURE_DEPENDS examples/[0-9][0-9]_*.c)
file(GLOB expected CONFIGURE_DEPENDS tests/examples/*.expected) # only so that a new one is noticed
foreach(example IN LISTS examples)
    add_example(${example})
endforeach()
