/*
 * Proxy-Status (RFC 9209) of answers of our own: which of the registered errors, and a sentence.
 *
 * Model    a fault of the exchange names its error type; what we refuse ourselves has one by its
 *          status. The next hop is never named: addresses behind us are not a client's business,
 *          logs have them.
 * Not here answers of the origin that are passed on: they keep the members that they came with.
 */
#include "request/priv.h"

/* All that section 2.3 registers. */
static const char *const registered[] = {
    "connection_limit_reached", "connection_read_timeout", "connection_refused",
    "connection_terminated", "connection_timeout", "connection_write_timeout",
    "destination_ip_prohibited", "destination_ip_unroutable", "destination_not_found",
    "destination_unavailable", "dns_error", "dns_timeout", "http_protocol_error",
    "http_request_denied", "http_request_error", "http_response_body_size",
    "http_response_content_coding", "http_response_header_section_size",
    "http_response_header_size", "http_response_incomplete", "http_response_timeout",
    "http_response_trailer_section_size", "http_response_trailer_size",
    "http_response_transfer_coding", "http_upgrade_failed", "proxy_configuration_error",
    "proxy_internal_error", "proxy_internal_response", "proxy_loop_detected",
    "tls_alert_received", "tls_certificate_error", "tls_protocol_error",
};

static bool
is_registered(const char *error)
{
    for (size_t i = 0; i < NELEM(registered); i++)
        if (strcmp(error, registered[i]) == 0)
            return true;
    return false;
}

/* What a status of ours says where no exchange failed. NULL: the request's own condition did. */
const char *
proxy_status_error(unsigned status)
{
    switch (status) {
    case 403:
        return "http_request_denied";
    case 404:
        return "destination_not_found";     /* no route */
    case 412:
        return NULL;
    case 500:
    case 503:
        return "proxy_internal_error";
    case 508:
        return "proxy_loop_detected";
    default:                        /* 504 is only-if-cached's; 501 and 505 are the parser's */
        return status < 500 ? "http_request_error" : "proxy_internal_response";
    }
}

/* Appends "Proxy-Status: ...\r\n". */
void
proxy_status_put(const struct request *r, struct buf *b, const char *error, const char *details)
{
    size_t from;

    assert(is_registered(error));
    buf_addz(b, "Proxy-Status: ");
    sf_put_text(b, r->site->via);
    buf_addz(b, "; error=");
    buf_addz(b, error);
    from = b->n;
    buf_addz(b, "; details=");
    if (!sf_put_string(b, slice_of(details)) && !b->failed)
        b->n = from;
    buf_addz(b, "\r\n");
}
