/* core/log.c: messages for people, to stderr and to run.log; stdout belongs to the verbs' own output.
 *
 *   HH:MM:SS.mmm LEVEL message          colour on a terminal only, and not when NO_COLOR is set
 *
 * On a terminal the progress line is rewritten in place, at most ten times a second, and moves below any
 * other message.
 */
#include "core/core.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static LogLevel max_level = LOG_INFO;
static FILE *log_file;
static bool plain_shown = true, level_given, progress_plain, file_stamps = true;
static char progress[512]; /* the terminal's last line, or "" */
static double progress_time = -1;

static const char *const NAMES[] = {"ERROR", "WARN", "INFO", "DEBUG"};
static const char *const COLOURS[] = {"\033[31m", "\033[33m", "\033[32m", "\033[36m"};

static bool terminal(void) { return isatty(STDERR_FILENO) == 1; }

static bool coloured(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(no && *no) && !(term && strcmp(term, "dumb") == 0) && terminal();
}

static void clock_text(char out[16])
{
    struct timespec now;
    struct tm t;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &t);
    size_t n = strftime(out, 16, "%H:%M:%S", &t);
    snprintf(out + n, 16 - n, ".%03d", (int)(now.tv_nsec / 1000000) % 1000);
}

void log_set_level(LogLevel level)
{
    max_level = level;
    level_given = true;
}
void log_default_level(LogLevel level)
{
    if (!level_given) max_level = level;
}
void log_shape(bool plain, bool stamps)
{
    progress_plain = plain;
    file_stamps = stamps;
}
void log_show_plain(bool on) { plain_shown = on; }

bool log_open(const char *path, bool append, Err *e)
{
    if (e->code != ERR_OK) return false;
    FILE *f = fopen(path, append ? "ae" : "we");
    if (!f) return err_set(e, ERR_FAIL, "%s: cannot open the log for writing: %s", path, strerror(errno));
    setvbuf(f, NULL, _IOLBF, 0);
    log_close();
    pthread_mutex_lock(&lock);
    log_file = f;
    pthread_mutex_unlock(&lock);
    return true;
}

void log_close(void)
{
    pthread_mutex_lock(&lock);
    if (progress[0]) fputc('\n', stderr);
    progress[0] = 0;
    if (log_file) fclose(log_file);
    log_file = NULL;
    pthread_mutex_unlock(&lock);
}

static void put_terminal(const char *clock, int level, const char *fmt, va_list ap)
{
    flockfile(stderr);
    if (progress[0]) fputs("\r\033[K", stderr);
    if (level >= 0) {
        bool tint = coloured();
        fprintf(stderr, "%s %s%-5s%s ", clock, tint ? COLOURS[level] : "", NAMES[level],
                tint ? "\033[0m" : "");
    }
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    if (progress[0]) fputs(progress, stderr);
    funlockfile(stderr);
}

/* One line to each place, headed by clock and level unless level is -1. The lock is held. */
static void put(const char *clock, int level, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    if (level >= 0 || (plain_shown && max_level >= LOG_INFO)) put_terminal(clock, level, fmt, ap);
    if (log_file) {
        if (level >= 0 && file_stamps) fprintf(log_file, "%s ", clock);
        if (level >= 0) fprintf(log_file, "%-5s ", NAMES[level]);
        vfprintf(log_file, fmt, again);
        fputc('\n', log_file);
    }
    va_end(again);
}

void log_at(LogLevel level, const char *fmt, ...)
{
    if (level > max_level) return;
    char clock[16];
    clock_text(clock);
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&lock);
    put(clock, (int)level, fmt, ap);
    pthread_mutex_unlock(&lock);
    va_end(ap);
}

void log_plain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&lock);
    put("", -1, fmt, ap);
    pthread_mutex_unlock(&lock);
    va_end(ap);
}

void log_progress(const char *line)
{
    pthread_mutex_lock(&lock);
    if (log_file) fprintf(log_file, "%s\n", line);
    if (max_level < LOG_INFO) {
        /* not on the screen */
    } else if (progress_plain || !terminal()) {
        fprintf(stderr, "%s\n", line);
    } else if (time_now() - progress_time >= 0.1) {
        progress_time = time_now();
        struct winsize w = {0};
        int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 79;
        snprintf(progress, sizeof progress, "%.*s", width, line);
        /* a wrapped line could not be rewritten */
        fprintf(stderr, "\r\033[K%s", progress);
    }
    pthread_mutex_unlock(&lock);
}
