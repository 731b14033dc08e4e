# SPDX-License-Identifier: MIT
# How a test is registered: always with a time limit and labels, and where several builds are tested at
# once with the build's name in its own.
set(CFUTURES_TEST_TIMEOUT 60 CACHE STRING "Seconds after which a test has failed")
set(CFUTURES_TEST_PREFIX "" CACHE STRING "Put before the name of each test")

# cfutures_test(name [LABELS label...] [TIMEOUT seconds] COMMAND command [argument...])
# A command that ends with 77 has found nothing to test with: the test counts as skipped.
function(cfutures_test name)
    cmake_parse_arguments(PARSE_ARGV 1 test "" "TIMEOUT" "LABELS;COMMAND")
    if(NOT test_TIMEOUT)
        set(test_TIMEOUT ${CFUTURES_TEST_TIMEOUT})
    endif()
    set(name "${CFUTURES_TEST_PREFIX}${name}")
    string(REGEX REPLACE "[.]$" "" build "${CFUTURES_TEST_PREFIX}")
    add_test(NAME "${name}" COMMAND ${test_COMMAND})
    set_tests_properties("${name}" PROPERTIES
        TIMEOUT ${test_TIMEOUT} LABELS "${test_LABELS};${build}" SKIP_RETURN_CODE 77)
endfunction()
