// What the tables of schemes, layouts and devices say nibble can do: scheme x form x layout x device.
#pragma once
#include <string>
#include <string_view>

#include "base/json.h"
#include "device/device.h"

namespace nibble::cli {

/// "ref", "cpu"
std::string_view target_name(Target target);

/// The text of docs/support-matrix.md.
std::string support_matrix_markdown();

/// The same as data: one object per scheme and form.
Json support_matrix_json();

}  // namespace nibble::cli
