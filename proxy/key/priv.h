/*
 * key/priv.h -- between the files of this room: the JSON path reader, content in its normal form.
 */
#ifndef WEIR_KEY_PRIV_H
#define WEIR_KEY_PRIV_H

#include "base/base.h"

#define KEY_JSON_STEPS 16               /* of a placeholder's path; more are refused at load */
#define KEY_JSON_DEPTH 64               /* of a document; deeper is no JSON to us (RFC 8259 9) */

/* One step of a path: a member's name, or every element of an array (name.p == NULL). */
struct json_path {
    struct slice steps[KEY_JSON_STEPS]; /* borrowed from the template's text */
    size_t       n;
};

/* Parses "items[].id" (of "response.body.items[].id"); "" is the document. -1 when malformed. */
int json_path_parse(struct slice text, struct json_path *path);

/* Values found: their bytes one behind the other in `text`, the end of each in `ends`. */
struct json_values {
    struct buf text;                    /* owned */
    uint32_t  *ends;                    /* the caller's, of cap */
    size_t     n, cap;
    bool       over;                    /* there were more than cap */
    bool       absent;                  /* somewhere the path led to no value */
};

/* Reads the whole document (RFC 8259, strictly) and appends every scalar at `path`: strings
 * unescaped as UTF-8, numbers as they stand, true and false; a null, an object or nothing there
 * gives no value, and sets `absent`; an array at the end of the path gives its scalars. An array
 * without elements gives no value and lacks none. 0, or -1 when the document is no JSON or memory
 * is out (text.failed). */
int json_find(struct slice document, const struct json_path *path, struct json_values *out);

/* Append the normal form of a JSON document, of a form. false: it has none, or memory is out, and
 * nothing was appended. */
bool content_json(struct slice content, struct buf *out);
bool content_form(struct slice content, struct buf *out);

#endif
