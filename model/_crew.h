/* Work cut into parts, each taken by whichever thread is free.

   Parts write to places of their own, so nothing depends on the number of threads. The threads are
   those of torch where it brings GNU OpenMP: they stay awake for a while after torch's own work, and
   threads of ours beside them would wait for a core. */

#pragma once
#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "_targets.h"

#define MOST_THREADS 64

typedef struct {
    void (*work)(void *job, Py_ssize_t part);
    void *job;
    Py_ssize_t parts;
    atomic_llong next;
} Crew;

/* What `#pragma omp parallel` becomes: runs a function on so many threads, and waits for them. */
typedef void GnuParallel(void (*part)(void *), void *given, unsigned threads, unsigned flags);

static void take(void *given)
{
    Crew *crew = given;
    Py_ssize_t part;
    while ((part = atomic_fetch_add(&crew->next, 1)) < crew->parts)
        crew->work(crew->job, part);
}

static void *take_parts(void *given)
{
    take(given);
    return NULL;
}

/* Threads for this one job; one that cannot be started is done without. */
static void run_on_new_threads(Crew *crew, int threads)
{
    pthread_t helpers[MOST_THREADS];
    int started = 0;
    while (started + 1 < threads && pthread_create(&helpers[started], NULL, take_parts, crew) == 0)
        started++;
    take(crew);
    while (started > 0)
        pthread_join(helpers[--started], NULL);
}

static void run(void (*work)(void *, Py_ssize_t), void *job, Py_ssize_t parts, int threads)
{
    Crew crew = {.work = work, .job = job, .parts = parts};
    GnuParallel *parallel = (GnuParallel *)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    if (threads > parts)
        threads = (int)parts;
    if (threads < 2)
        take(&crew);
    else if (parallel)
        parallel(take, &crew, (unsigned)threads, 0);
    else
        run_on_new_threads(&crew, threads);
}
