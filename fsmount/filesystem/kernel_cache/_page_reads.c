/* Marks the reads with which the kernel fills its page cache, for sendfile() and splice(); file_sizes.py says why.
 *
 * The kernel names the owner of the file in a plain read() and in no other read.  libfuse passes that on; pyfuse3 does
 * not.  So this module defines fuse_session_new(), which pyfuse3 calls, and has libfuse call the read() below.  A
 * marked read has the complement of its offset, a negative number.
 *
 * fsmount/filesystem/__init__.py loads this module before pyfuse3, with RTLD_GLOBAL.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 314
#include <dlfcn.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef void (*Read)(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);

static Read plain_read;
static bool marks;

static void marking_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    plain_read(request, inode, size, file->lock_owner ? offset : ~offset, file);
}

/* Copies the operations, with our read(); false: they have no read(). */
static bool put_between(struct fuse_lowlevel_ops *mine, const struct fuse_lowlevel_ops *operations, size_t size)
{
    if (size > sizeof *mine || size <= offsetof(struct fuse_lowlevel_ops, read) || !operations->read)
        return false;
    memcpy(mine, operations, size);
    plain_read = operations->read;
    mine->read = marking_read;
    marks = true;
    return true;
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
#define NEW fuse_session_new_versioned
#define VERSION_PARAMETER , struct libfuse_version *version
#define VERSION , version
#undef fuse_session_new
#else
#define NEW fuse_session_new
#define VERSION_PARAMETER
#define VERSION
#endif

#define STRING(name) STRING_OF(name)
#define STRING_OF(name) #name

typedef struct fuse_session *(*New)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t VERSION_PARAMETER,
                                    void *);

__attribute__((visibility("default"))) struct fuse_session *
NEW(struct fuse_args *arguments, const struct fuse_lowlevel_ops *operations, size_t size VERSION_PARAMETER, void *data)
{
    struct fuse_lowlevel_ops mine;
    New of_libfuse;

    *(void **)&of_libfuse = dlsym(RTLD_NEXT, STRING(NEW));
    if (!of_libfuse)
        return NULL;
    return of_libfuse(arguments, put_between(&mine, operations, size) ? &mine : operations, size VERSION, data);
}

static PyObject *is_marking(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return PyBool_FromLong(marks);
}

static PyMethodDef methods[] = {
    { "is_marking", is_marking, METH_NOARGS, "Whether the reads of the mount are marked." },
    { NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_page_reads",
    .m_doc = "Marks the reads with which the kernel fills its page cache.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__page_reads(void);

PyMODINIT_FUNC PyInit__page_reads(void)
{
    return PyModule_Create(&definition);
}
