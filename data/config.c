/* data/config.c: field tables of the sections data and tokenizer, made from data/*.def (core/config.h). */
#include "data/data.h"

static const ConfigField source_fields[] = {
#define CFG_STRUCT SourceConfig
#include "core/config_table.h"
#include "data/source.def"
#include "core/config_undef.h"
};
static const ConfigSection source_table = {"source", sizeof(SourceConfig), CFG_COUNT(source_fields), source_fields,
    "one token source", NULL, 0};
const ConfigSection *source_section(void) { return &source_table; }

static const ConfigField data_fields[] = {
#define CFG_STRUCT DataConfig
#include "core/config_table.h"
#include "data/data.def"
#include "core/config_undef.h"
};
static const char *const data_alias[][2] = {
    {"cutoff_len", "seq_len"}, {"sequence_len", "seq_len"}, {"block_size", "seq_len"},
    {"max_seq_len", "seq_len"},
};
static const ConfigSection data_table = {"data", sizeof(DataConfig), CFG_COUNT(data_fields), data_fields,
    "where tokens come from", data_alias, CFG_COUNT(data_alias)};
const ConfigSection *data_section(void) { return &data_table; }

static const ConfigField tokenizer_fields[] = {
#define CFG_STRUCT TokenizerConfig
#include "core/config_table.h"
#include "data/tokenizer.def"
#include "core/config_undef.h"
};
static const ConfigSection tokenizer_table = {"tokenizer", sizeof(TokenizerConfig), CFG_COUNT(tokenizer_fields), tokenizer_fields,
    "text to tokens", NULL, 0};
const ConfigSection *tokenizer_section(void) { return &tokenizer_table; }
