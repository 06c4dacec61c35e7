/* data/config.c: field tables of the sections data and tokenizer, made from their lists (core/config.h). */
#include "data/data.h"

static const ConfigField source_fields[] = {
#define CFG_STRUCT SourceConfig
#include "core/config_table.h"
#include "data/source.def"
#include "core/config_undef.h"
};
CFG_SECTION(source_section, "source", SourceConfig, source_fields, "one token source")

static const ConfigField data_fields[] = {
#define CFG_STRUCT DataConfig
#include "core/config_table.h"
#include "data/data.def"
#include "core/config_undef.h"
};
static const char *const data_alias[][2] = {
    {"cutoff_len", "seq_len"}, {"sequence_length", "seq_len"}, {"sequence_len", "seq_len"},
    {"block_size", "seq_len"}, {"max_seq_len", "seq_len"},
};
CFG_SECTION_ALIAS(data_section, "data", DataConfig, data_fields, "where tokens come from", data_alias)

static const ConfigField tokenizer_fields[] = {
#define CFG_STRUCT TokenizerConfig
#include "core/config_table.h"
#include "data/tokenizer.def"
#include "core/config_undef.h"
};
CFG_SECTION(tokenizer_section, "tokenizer", TokenizerConfig, tokenizer_fields, "text to tokens")
