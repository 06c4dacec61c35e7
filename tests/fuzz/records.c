/* tests/fuzz/records.c: json and jsonl sources: the reader and what a record says, as documents of bytes. The first
 * byte chooses what the source's keys ask for: 0 a text, 1 prompt and response, 2 a chat, 3 what the record is. */
#include "data/source_impl.h"
#include "tests/fuzz/fuzz_impl.h"

static void records_of(const SourceConfig *s, const DataConfig *d, Arena *a, Err *e)
{
    Paths p;
    FileKind kind;
    Reader r;
    Rule rule;
    Piece piece;
    Tokenizer *tk = tokenizer_open("bytes", a, e);
    if (!tk || !source_open(&p, &kind, s, tk, a, e) || !reader_open(&r, &p, kind, s, d, tk, a, e)) return;
    for (bool ok = rule_open(&rule, &r, s, d, a, e); ok && reader_next(&r, &piece, e);) {
        static Err bad;
        Stream out = {0};
        size_t text = 0;
        const ArenaMark mark = arena_mark(a);
        bad.code = ERR_OK;
        bad.msg[0] = 0;
        if (!rule_encode(&rule, &piece, &out, &text, a, &bad) && !bad.msg[0])
            FUZZ_FAIL("a bad record without a message");
        for (size_t i = 0; i < out.ids.n; i++)
            if (out.ids.id[i] < 0 || out.ids.id[i] > 256) FUZZ_FAIL("id %d", out.ids.id[i]);
        arena_release(a, mark);
    }
    reader_close(&r);
}

FUZZ(records, 128)
{
    if (n == 0) return;
    const int how = data[0] & 3;
    const SourceConfig s = {.path = fuzz_file("x.jsonl", data + 1, n - 1),
                            .format = "jsonl",
                            .weight = 1,
                            .field = "text",
                            .prompt_field = how == 1 ? "prompt" : NULL,
                            .response_field = how == 1 ? "response" : NULL,
                            .messages_field = how == 2 ? "messages" : NULL};
    const DataConfig d = {.packing = "concat",
                          .eot = "prepend",
                          .too_long = "auto",
                          .on_bad_line = "skip",
                          .vocab_check = "error",
                          .mask_prompt = true,
                          .chat_template = how == 3 ? "llama2" : "chatml"};
    records_of(&s, &d, a, e);
}
