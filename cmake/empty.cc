// Keeps a layer without sources of its own (yet) a valid library.
namespace nibble::detail {
extern const int empty_layer;
const int empty_layer = 0;
}  // namespace nibble::detail
