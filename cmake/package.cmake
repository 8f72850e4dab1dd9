# `cmake --install` gives a package: find_package(nibble) defines nibble::nibble, which stands for the static libraries of
# all layers below the command line and what they need.
include(CMakePackageConfigHelpers)

set(NIBBLE_PACKAGE_LAYERS base tensor device layout checkpoint quant text nn models run calib api)
set(nibble_package_targets nibble_simdjson nibble_libzip nibble_pcre2 nibble_icu nibble_sentencepiece nibble_libcrypto)
foreach(layer ${NIBBLE_PACKAGE_LAYERS})
  list(APPEND nibble_package_targets nibble_${layer})
endforeach()

# The name that users link: `nibble_api` with all it needs.
add_library(nibble_package INTERFACE)
target_link_libraries(nibble_package INTERFACE nibble_api)
target_include_directories(nibble_package INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(nibble_package INTERFACE cxx_std_20)
set_target_properties(nibble_package PROPERTIES EXPORT_NAME nibble)
list(APPEND nibble_package_targets nibble_package)

install(TARGETS ${nibble_package_targets} EXPORT nibble-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT nibble-targets NAMESPACE nibble:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/nibble DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/nibble-config.cmake.in ${PROJECT_BINARY_DIR}/nibble-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/nibble-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/nibble-config.cmake ${PROJECT_BINARY_DIR}/nibble-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
