/*
 * plugins/watched.h -- for shipped plugins: has a file changed since the last look?
 */
#ifndef WEIR_PLUGIN_WATCHED_H
#define WEIR_PLUGIN_WATCHED_H

#include <sys/stat.h>

struct watched {
    const char *path;                   /* the configuration's */
    struct timespec changed;            /* these: as it was at the last look */
    off_t size;
    ino_t inode;
};

/* To be asked before it is read, so that what is written meanwhile is seen at the next look. */
static inline int
watched_changed(struct watched *w)
{
    struct stat st;

    if (stat(w->path, &st) == -1)
        return 0;                       /* being replaced: the next look finds it */
    if (st.st_mtim.tv_sec == w->changed.tv_sec && st.st_mtim.tv_nsec == w->changed.tv_nsec &&
        st.st_size == w->size && st.st_ino == w->inode)
        return 0;
    w->changed = st.st_mtim;
    w->size = st.st_size;
    w->inode = st.st_ino;
    return 1;
}

#endif
