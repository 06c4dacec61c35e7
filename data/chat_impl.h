/* Private to data/: chat templates as data, shared by chat.c (finding one) and chat_encode.c (using it). */
#ifndef CHAT_IMPL_H
#define CHAT_IMPL_H
#include "data/source_impl.h"

#define CHAT_BOS "\x01" /* in the literal parts of a style; no template's text has them */
#define CHAT_EOS "\x02"
enum {
    CHAT_PUT_BOS = 1,
    CHAT_TRIM = 2,
    CHAT_ALTERNATE = 4,
    CHAT_SYSTEM_IN_USER = 8,
    CHAT_NO_SYSTEM = 16,
    CHAT_TRIM_WHOLE = 32, /* with SYSTEM_IN_USER: the joined content is trimmed, not its parts */
    CHAT_LEAD = 64
};
typedef struct ChatStyle {
    const char *name;
    unsigned flags;
    const char *default_system, *system[2], *user[2], *assistant, *end, *tail;
} ChatStyle;
enum { MAX_CHAT_SPECIALS = 32 };
struct Chat {
    const ChatStyle *style;
    const Tokenizer *tk;
    int n_special;
    const char *special[MAX_CHAT_SPECIALS];
    int32_t special_id[MAX_CHAT_SPECIALS];
};
/* A part of a conversation: literal (of the template) or text (of a message). */
typedef struct ChatPart {
    const char *s;
    size_t n;
    bool literal, trained;
} ChatPart;
/* The conversation as parts, in order. Errors: an order of roles that the template refuses. */
bool chat_parts(const ChatStyle *st, const Message *m, size_t n, ChatPart **part, size_t *n_part, Arena *a,
                Err *e);
#endif
