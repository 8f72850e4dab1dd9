// Texts for evaluation as the published protocols build them: a file as it is, or the rows and pages of the WikiText
// data set, joined and detokenized the way each protocol's own script does it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// How a protocol makes one text of a data set's rows.
enum class RowJoin : std::uint8_t {
  as_file,       ///< nothing between rows (llama.cpp reads wiki.test.raw itself)
  blank_lines,   ///< "\n\n" between rows (GPTQ, AWQ, the Transformers documentation)
  marked_empty,  ///< nothing between rows, an empty row becomes " \n" (AutoGPTQ, Quanto's bench)
  documents,     ///< every row is a text of its own (lm-eval)
};

/// A text that is tokenized in one piece. Words and bytes are counted as lm-eval counts them, before detokenizing.
struct EvalDocument {
  std::string text;
  std::int64_t words = 0;
  std::int64_t bytes = 0;
};

/// `text` as one document.
std::vector<EvalDocument> document_of(std::string text);

/// Rows of a data set (the field "text" of each record) as the documents of a protocol.
std::vector<EvalDocument> documents_of_rows(std::span<const std::string> rows, RowJoin join);

/// The documents that a protocol makes of a raw WikiText file (wiki.test.raw). Its lines are the data set's rows: each
/// keeps its newline, blank ones are empty (datasets: wikitext-2-raw-v1). For RowJoin::documents the file is cut at its
/// " = Title = " lines (wikitext_document_level) and detokenized by lm-eval's rules for the task "wikitext".
std::vector<EvalDocument> documents_of_wikitext(std::string_view raw, RowJoin join);

/// Pieces that Python's re.split(r"\s+", text) gives: what lm-eval calls words.
std::int64_t count_words(std::string_view text);

/// lm-eval's wikitext_detokenizer (lm_eval/tasks/wikitext/preprocess_wikitext.py).
std::string detokenize_wikitext(std::string text);

}  // namespace nibble
