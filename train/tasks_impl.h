/* train/tasks_impl.h: examples of a task, as tasks_read.c reads and tasks.c scores them. */
#ifndef TASKS_IMPL_H
#define TASKS_IMPL_H
#include "train/train.h"

enum { MAX_CHOICES = 32 };
/* Text before, and what may follow; the continuations bring their own leading space. */
typedef struct Example {
    const char *context, *choice[MAX_CHOICES];
    int n, label;
    long line;
} Example;
typedef struct Examples {
    Example *v;
    long n;
    const char *protocol;
} Examples;
/* Reads o->path as o->name says; the protocol is settled here. */
bool examples_read(Examples *x, const TaskOptions *o, Arena *a, Err *e);
#endif
