/*
 * If-Match of what its client read while it was pending.
 *
 * Model    pending content has a tag of ours (write_etag), which the origin does not know. When a
 *          write with such a condition is delivered, the one that left the content has been: it was
 *          before it. Its answer's own tag is that of what it sent (RFC 9110 9.3.4), and stands in
 *          the place of ours, so that the origin judges whether anybody came between. Where it was
 *          refused, or its answer has no strong tag, ours stays, and the origin answers 412: what
 *          the client read never was there, or cannot be compared. While the journal cannot be
 *          read nothing is delivered.
 * Threads  the write loop.
 */
#include "write/priv.h"

#include <errno.h>

/* The strong tag of the answer to the write with this id. 1; 0: there is none; -1: that cannot be
 * told now. */
static int
put_tag(struct writes *w, struct slice id, struct buf *b)
{
    struct write_content c;
    struct write_row row;
    struct slice rest, tag;
    const char *line;
    uint64_t seq;
    struct err e;
    int rc = journal_id_seq(w->j, id, &seq);

    if (rc == 1 && (rc = journal_read(w->j, seq, &row, &c, &e)) == -1 && e.code == EBADMSG)
        rc = 0;
    if (rc != 1)
        return rc;
    if (row.state != WRITE_DELIVERED || (line = fields_find(c.answer_head, SLICE("ETag"))) == NULL)
        return 0;
    rest = (struct slice){ line + 5, (size_t)(c.answer_head.p + c.answer_head.n - line) - 5 };
    slice_cut(&rest, '\r', &tag);
    tag = slice_trim(tag);
    if (!sem_etag_strong_equal(tag, tag))
        return 0;
    buf_adds(b, tag);
    return 1;
}

int
tags_put(struct writes *w, struct slice line, struct buf *b)
{
    const struct slice ours = SLICE("\"weir-pending-");
    const size_t whole = ours.n + WRITE_ID_N + 1;
    const char *at;
    int rc;

    while ((at = memmem(line.p, line.n, ours.p, ours.n)) != NULL) {
        buf_add(b, line.p, (size_t)(at - line.p));
        line = (struct slice){ at, line.n - (size_t)(at - line.p) };
        rc = line.n < whole || line.p[whole - 1] != '"' ? 0 :
            put_tag(w, (struct slice){ line.p + ours.n, WRITE_ID_N }, b);
        if (rc == -1)
            return -1;
        if (rc == 0)
            buf_add(b, line.p, line.n < whole ? line.n : whole);
        line.p += line.n < whole ? line.n : whole;
        line.n -= line.n < whole ? line.n : whole;
    }
    buf_adds(b, line);
    return 0;
}
