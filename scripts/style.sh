#!/bin/sh
# The house rules as a check:  scripts/style.sh            in the project's root; exit status 1 when a rule is broken
#                              scripts/style.sh -w         lists the warnings too
#                              scripts/style.sh --prove    plants one violation of every rule in a scratch tree
# A line of output is `file:line: rule: what`; the rules are the `say("...")` and `warn("...")` calls below.
set -eu
LC_ALL=C
export LC_ALL

# Columns of a line of code, but for the tables (*.def).
WIDTH=110
# Files that may pass 700 lines, each with its reason.
LONG_OK=''

folders='core kernels autograd optim data formats model compress infer train tests bench'

check() {
    sources=''
    for f in *.c; do [ ! -f "$f" ] || sources="$sources $f"; done
    for d in $folders include; do
        for f in "$d"/*.c "$d"/*.h "$d"/*.def "$d"/*.cu "$d"/*.cuh; do [ ! -f "$f" ] || sources="$sources $f"; done
    done
    texts=''
    for f in Makefile README.md .ci/run docs/*.md scripts/* configs/* tests/golden/*.py tests/oracle/* bench/*.md; do
        [ ! -f "$f" ] || texts="$texts $f"
    done
    # shellcheck disable=SC2086
    awk -v long_ok=" $LONG_OK " -v list="$1" -v width="$WIDTH" '
    function say(rule, what) { printf "%s:%d: %s: %s\n", FILENAME, FNR, rule, what; errors++ }
    function warn(rule, what) {
        if (list) printf "%s:%d: %s (warning): %s\n", FILENAME, FNR, rule, what
        warnings++
    }
    function has(code, names) { return code ~ ("(^|[^A-Za-z0-9_])(" names ")[ \t]*\\(") }

    # The line without comments and without what stands in quotes, so that words in texts break no rule.
    function code_of(line,    out, i, c, two, q) {
        out = ""
        for (i = 1; i <= length(line); i++) {
            c = substr(line, i, 1); two = substr(line, i, 2)
            if (in_comment) { if (two == "*/") { in_comment = 0; i++ } continue }
            if (two == "/*") { in_comment = 1; i++; out = out " "; continue }
            if (two == "//") break
            if (c == "\"" || c == "\047") {
                q = c; out = out q
                for (i++; i <= length(line) && (c = substr(line, i, 1)) != q; i++) if (c == "\\") i++
                out = out q
                continue
            }
            out = out c
        }
        return out
    }
    function file_end() {
        if (!file || !is_code) return
        if (lines > 700 && index(long_ok, " " file " ") == 0) {
            printf "%s:%d: file-length: over 700 lines\n", file, lines; errors++
        } else if (lines > 500) {
            printf "%s:%d: file-length (warning): over 500 lines\n", file, lines; warnings++
        }
    }
    BEGIN {
        n = split("core 0 kernels 1 autograd 2 optim 3 data 3 formats 3 model 4 compress 5 infer 6 train 7 include 8 " \
                  "tests 9 bench 9", f, " ")
        for (i = 1; i < n; i += 2) floor[f[i]] = f[i + 1]
    }
    FNR == 1 {
        file_end()
        file = FILENAME; lines = 0; in_comment = 0; fn = 0; files++
        folder = file ~ "/" ? substr(file, 1, index(file, "/") - 1) : ""
        is_code = file ~ /\.(c|h|cu|cuh|def)$/
        lib = is_code && folder != "" && folder != "tests" && folder != "bench"
        if (is_code && $0 !~ /^\/\*/) say("head", "the file does not open with a comment that says what it is")
        if (lib && file ~ /\.h$/ && file !~ /_impl\.h$/ && file != folder "/" folder ".h" &&
            file !~ /^(core\/config[a-z_]*|kernels\/scalar)\.h$/ && folder != "include")
            say("header", "a folder has one public header, " folder "/" folder ".h; others are named *_impl.h")
    }
    { lines++ }
    /(^|[^A-Za-z0-9_.])\/(work|root|home|farm|mnt|Users|tmp\/bash_jobs)\/[A-Za-z0-9_]/ { say("path", "an absolute path of one machine") }
    !is_code { next }
    {
        text = $0
        gsub(/[\200-\277]/, "", text)                   # so that a letter of UTF-8 counts once
        if (length(text) > width && FILENAME !~ /\.def$/) say("line-length", length(text) " columns, " width " at most")
        if ($0 ~ /[ \t]$/) say("blank", "blanks at the end of the line")
        if (index($0, "\t")) say("tab", "a tab")
        if ($0 ~ /(^|[^A-Za-z0-9_])(TODO|FIXME|XXX|HACK|not implemented|unimplemented|stub)([^A-Za-z0-9_]|$)/)
            say("mark", "an unfinished mark")
        code = code_of($0)
        if (has(code, "ato[ifl]|atoll|strcpy|strcat|strncpy|strncat|stpcpy|v?sprintf|strtok|gets|s?rand|system|popen|tmpnam|mktemp"))
            say("banned", "a banned function: " code)
        if (lib && FILENAME != "core/arena.c" &&
            has(code, "malloc|calloc|realloc|reallocarray|aligned_alloc|memalign|posix_memalign|strn?dup|v?asprintf|getline|open_memstream"))
            say("malloc", "memory comes from core/arena.c only")
        if (lib && has(code, "exit|_exit|_Exit|quick_exit|abort|v?printf|puts|putchar|perror"))
            say("library", "library code neither prints nor ends the process")
        if (lib && FILENAME != "core/log.c" && code ~ /(^|[^A-Za-z0-9_])(stdout|stderr)([^A-Za-z0-9_]|$)/)
            say("stream", "stdout and stderr belong to the verbs and to core/log.c")
        if (code ~ /^\{/) fn = FNR
        if (code ~ /^\}/ && fn) { if (FNR - fn > 61) warn("function", (FNR - fn - 1) " lines, 60 at most"); fn = 0 }
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, part, "\""); inc = part[2]
        other = inc ~ "/" ? substr(inc, 1, index(inc, "/") - 1) : folder
        if (other != folder && inc ~ /_impl\.h$/ && folder != "tests" && folder != "bench")
            say("private", inc " is private to " other "/")
        if (inc ~ /^\.\./) say("include", "include from the root: \"folder/file.h\"")
        else if (folder != "" && other != folder && folder in floor && (!(other in floor) || floor[other] + 0 >= floor[folder] + 0))
            say("floor", folder "/ may not include " inc ": only lower floors")
    }
    END {
        file_end()
        printf "style: %d files, %d errors, %d warnings%s\n", files, errors, warnings, list || !warnings ? "" : " (-w lists them)"
        exit errors > 0
    }' $sources $texts || return 1
    # Flags that would break isnan, or make a binary for one machine.
    if grep -nE -e '^[^#]*(-ffast-math|-funsafe-math|-Ofast|-march=native)' Makefile /dev/null 2>/dev/null; then
        echo "Makefile: flags: fast-math and -march=native do not ship"
        return 1
    fi
}

# name of the rule | file | text that breaks it; %N = new line
prove() {
    self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    long=$(printf '%0121d' 0)
    seven=$(awk 'BEGIN { for (i = 0; i < 700; i++) printf "%%N" }')
    slash=/
    bad=0 rules=0
    fresh() {
        rm -rf "${dir:?}"/*
        mkdir "$dir/core" "$dir/kernels" "$dir/data" "$dir/tests"
        printf 'all:\n' >"$dir/Makefile"
        printf '/* clean: printf("exit(1)") in a comment, "malloc(" in a text */\n#include "core/core.h"\nchar *s = "abort()";\n' \
            >"$dir/kernels/x.c"
        printf '/* tests may print and look at every private header */\n#include "kernels/a_impl.h"\nvoid f(void) { printf("x"); exit(1); }\n' \
            >"$dir/tests/t.c"
    }
    fresh
    (cd "$dir" && "$self" >out 2>&1) || { echo "prove: the clean tree fails:"; cat "$dir/out"; bad=1; }
    while IFS='|' read -r rule file text; do
        fresh
        printf '%s\n' "$text" | sed 's/%N/\n/g' >"$dir/$file"
        rules=$((rules + 1))
        if (cd "$dir" && "$self" -w >out 2>&1) && [ "$rule" != function ] || ! grep -q ": $rule" "$dir/out"; then
            echo "prove: rule '$rule' does not see its violation in $file"
            bad=1
        fi
    done <<LIST
head|core/a.c|int x;
header|core/extra.h|/* h */
path|core/a.c|/* see ${slash}home/someone/file */
line-length|core/a.c|/* $long */
blank|core/a.c|/* a */ 
tab|core/a.c|/* a */	int x;
mark|core/a.c|/* a */ /* $(printf 'TO%s' DO) later */
banned|tests/a.c|/* a */%Nint x(void) { return atoi("1"); }
malloc|core/a.c|/* a */%Nvoid *x(void) { return malloc(1); }
library|core/a.c|/* a */%Nvoid x(void) { exit(1); }
library|data/a.c|/* a */%Nvoid x(void) { printf("1"); }
stream|core/a.c|/* a */%Nvoid x(void) { fprintf(stderr, "1"); }
function|core/a.c|/* a */%Nvoid x(void)%N{$(printf '%s' "$seven" | cut -c1-130)%N}
file-length|core/a.c|/* a */$seven
private|data/a.c|/* a */%N#include "core/a_impl.h"
include|core/a.c|/* a */%N#include "../x.h"
floor|core/a.c|/* a */%N#include "kernels/kernels.h"
floor|data/a.c|/* a */%N#include "formats/formats.h"
floor|kernels/a.c|/* a */%N#include "tests/test.h"
flags|Makefile|CFLAGS = -ffast-math
LIST
    [ $bad = 0 ] && echo "style: each of $rules planted violations is seen"
    return $bad
}

case "${1:-}" in
--prove) prove ;;
-w) check 1 ;;
*) check '' ;;
esac
