# SPDX-License-Identifier: MIT
# How everything here is compiled: the language, the warnings, and for the library in optimized builds
# the hardening that no measurement of a task's time can tell from none.  All of it together takes 3 in
# 100 instructions more; -ftrivial-auto-var-init=zero alone would take 6, and is left out.
include(CheckCCompilerFlag)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)

set(cfutures_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
set(cfutures_c_warnings -Wstrict-prototypes -Wmissing-prototypes)

add_library(cfutures_build INTERFACE)
target_compile_options(cfutures_build INTERFACE
    ${cfutures_warnings} $<$<COMPILE_LANGUAGE:C>:${cfutures_c_warnings}>)
target_compile_definitions(cfutures_build INTERFACE $<$<CONFIG:Debug>:CFI_DEBUG>)

add_library(cfutures_hardened INTERFACE)
set(CMAKE_REQUIRED_FLAGS -Werror) # clang takes the flags of other processors, with a warning
set(optimized $<CONFIG:Release,RelWithDebInfo,MinSizeRel>)
foreach(flag IN ITEMS
        -fstack-protector-strong -fstack-clash-protection -fno-strict-overflow
        -fcf-protection=full -mbranch-protection=standard)
    string(MAKE_C_IDENTIFIER "CFUTURES_HAS${flag}" known)
    check_c_compiler_flag(${flag} ${known})
    if(${known})
        target_compile_options(cfutures_hardened INTERFACE $<${optimized}:${flag}>)
    endif()
endforeach()
unset(CMAKE_REQUIRED_FLAGS)
# Undefined first: a distribution's own flags may have set another level.
target_compile_options(cfutures_hardened INTERFACE
    $<${optimized}:-U_FORTIFY_SOURCE> $<${optimized}:-D_FORTIFY_SOURCE=3>)
