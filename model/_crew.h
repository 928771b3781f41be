/* Work cut into parts, each taken by whichever thread is free.

   Parts write to places of their own, so nothing depends on the number of threads; torch's own may
   still be spinning on a core, which then takes fewer parts. */

#pragma once
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>

/* One binary for all processors: the widest registers are found when the module is loaded. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FAST
#endif

#define MOST_THREADS 64

typedef struct {
    void (*work)(void *job, Py_ssize_t part);
    void *job;
    Py_ssize_t parts;
    atomic_llong next;
} Crew;

static void *take_parts(void *given)
{
    Crew *crew = given;
    Py_ssize_t part;
    while ((part = atomic_fetch_add(&crew->next, 1)) < crew->parts)
        crew->work(crew->job, part);
    return NULL;
}

/* A thread that cannot be started is done without. */
static void run(void (*work)(void *, Py_ssize_t), void *job, Py_ssize_t parts, int threads)
{
    Crew crew = {.work = work, .job = job, .parts = parts};
    pthread_t helpers[MOST_THREADS];
    int started = 0;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    while (started + 1 < threads && started + 1 < parts
           && pthread_create(&helpers[started], NULL, take_parts, &crew) == 0)
        started++;
    take_parts(&crew);
    while (started > 0)
        pthread_join(helpers[--started], NULL);
}
