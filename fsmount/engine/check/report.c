/* report.c - the lines of the report, and the names of records in them. */
#include "check/report.h"

#include <stdarg.h>
#include <string.h>

void report_finding(checker *ck, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(ck->report, format, arguments);
    va_end(arguments);
    putc('\n', ck->report);
    ck->findings++;
}

label name_it(const char *format, ...)
{
    label name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

#define ESCAPED_MAX (4 * (size_t)FSM_NAME_MAX)

/* Control characters, those of Unicode included, are written \xNN: a terminal must not obey a name. */
static size_t escape(const char *name, size_t length, char out[ESCAPED_MAX])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i], before = i > 0 ? (unsigned char)name[i - 1] : 0;
        if (c < ' ' || c == 0x7f || c == '\\' || (before == 0xc2 && c < 0xa0)) {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        } else {
            out[n++] = (char)c;
        }
    }
    return n;
}

/* The path; only its end if it is very long. */
label name_group(const fsm_region *r, uint32_t index)
{
    char path[ESCAPED_MAX + 64], name[ESCAPED_MAX];
    char *at = path + sizeof path;
    *--at = 0;
    uint32_t i = index, depth = 0;
    for (; i != 0; i = r->groups[i].parent, depth++) {
        if (i >= r->header->groups.high || !is_live(&r->groups[i]) || depth > FSM_DEPTH_MAX)
            return name_it("group %u%s%s", i, *at ? " and below it " : "", *at ? at + 1 : "");
        const group *g = &r->groups[i];
        size_t length = escape(g->name, g->name_length < FSM_NAME_MAX ? g->name_length : FSM_NAME_MAX, name);
        if (length + 1 > (size_t)(at - path))
            return name_it("...%s", at);
        at -= length;
        memcpy(at, name, length);
        *--at = '/';
    }
    return name_it("%s", *at ? at : "/");
}

label name_counter(const fsm_region *r, uint32_t index)
{
    uint32_t resources = r->geometry.resources;
    return name_it("%s %s", name_group(r, index / resources).text, r->geometry.resource[index % resources].name);
}

label name_bucket(const fsm_region *r, uint32_t index)
{
    (void)r;
    return name_it("bucket %u", index);
}

label name_process(const fsm_region *r, uint32_t index)
{
    return name_it("process %u (pid %d)", index, r->holders[index].pid);
}

label name_lease(const fsm_region *r, uint32_t index)
{
    return name_it("lease %u (pid %d)", index, r->holders[r->geometry.holders + index].pid);
}

label name_holder(const fsm_region *r, uint32_t index)
{
    uint32_t processes = r->geometry.holders;
    return index < processes ? name_process(r, index) : name_lease(r, index - processes);
}

label name_waiter(const fsm_region *r, uint32_t index)
{
    (void)r;
    return name_it("waiter %u", index);
}

label name_watch(const fsm_region *r, uint32_t index)
{
    (void)r;
    return name_it("watch %u", index);
}

label name_cell(const fsm_region *r, uint32_t index)
{
    const cell *cl = &r->cells[index];
    if (!is_owned(cl) || !holder_at(r, cl->owner - 1) || !counter_at(r, cl->counter))
        return name_it("%s cell %u", cl->owner == QUARANTINED ? "quarantined" : cl->owner ? "lost" : "free", index);
    return name_it("cell %u of %s in %s", index, name_holder(r, cl->owner - 1).text, name_counter(r, cl->counter).text);
}
