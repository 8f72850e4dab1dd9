# nibble_layer(name LINK PUBLIC ... PRIVATE ...): the static library nibble_<name> from src/<name>/**.cc
# (tests excluded), and, when tests are built, the program nibble_<name>_test from src/<name>/**_test.cc.
# A new file needs no change here. Files named *_<isa>.cc get that instruction set's flags (see below).
set(NIBBLE_ISA_avx512bf16 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512bf16 -mfma -mf16c -mavx2 -mbmi2)
set(NIBBLE_ISA_avx512vnni -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512vnni -mfma -mf16c -mavx2 -mbmi2)
set(NIBBLE_ISA_amx -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512bf16 -mavx512vnni -mfma -mf16c -mavx2 -mbmi2
                   -mamx-tile -mamx-bf16 -mamx-int8)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND NIBBLE_ISA_amx -Wno-uninitialized)  # of g++ 12's own AVX-512 header, at -O1
endif()
set(NIBBLE_ISA_avx2 -mavx2 -mfma -mf16c -mbmi2)

# Checks inlined at every vector load make the compiler take minutes over a Highway kernel: there ASan's go through calls,
# and UBSan and the fuzzers' counters keep to the rest (the scalar reference, which every kernel is compared with).
set(NIBBLE_KERNEL_FILES "/cpu\\.cc$|_cpu\\.cc$|gemm_simd\\.cc$|device/cpu/.*\\.cc$")
function(nibble_sanitize_kernels)
  if(NIBBLE_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
    set(kernels ${ARGN})
    list(FILTER kernels INCLUDE REGEX "${NIBBLE_KERNEL_FILES}")
    set_property(SOURCE ${kernels} APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=fuzzer-no-link,undefined
                 -mllvm -asan-instrumentation-with-call-threshold=0 -mllvm -asan-stack=0)
  endif()
endfunction()

function(nibble_layer name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cc)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.h)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    foreach(isa avx512bf16 avx512vnni amx avx2)
      set(of_isa ${sources})
      list(FILTER of_isa INCLUDE REGEX "_${isa}\\.cc$")
      if(of_isa)
        set_source_files_properties(${of_isa} PROPERTIES COMPILE_OPTIONS "${NIBBLE_ISA_${isa}}")
      endif()
    endforeach()
  else()
    list(FILTER sources EXCLUDE REGEX "_(avx512bf16|avx512vnni|amx|avx2)\\.cc$")
  endif()
  nibble_sanitize_kernels(${sources})
  if(NOT sources)
    set(sources ${PROJECT_SOURCE_DIR}/cmake/empty.cc)
  endif()
  add_library(nibble_${name} STATIC ${sources})
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  target_link_libraries(nibble_${name} ${arg_LINK})
  target_link_libraries(nibble_${name} PRIVATE $<BUILD_INTERFACE:nibble_options> PUBLIC Threads::Threads)
  # include/ holds the installed headers; the lowest layer already throws their Error.
  target_include_directories(nibble_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                                                   $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
  set_property(GLOBAL APPEND PROPERTY NIBBLE_LAYERS nibble_${name})
  if(NIBBLE_TESTS AND tests)
    set_property(GLOBAL APPEND PROPERTY NIBBLE_TEST_LAYERS ${name})
    set_property(GLOBAL PROPERTY NIBBLE_TESTS_${name} "${tests}")
  endif()
endfunction()
