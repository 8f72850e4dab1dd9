# `cmake --install` gives a package: find_package(nibble) defines nibble::nibble.
