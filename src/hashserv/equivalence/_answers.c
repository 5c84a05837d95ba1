/* The cache of answers, compiled: the same as `PythonAnswers` in cache.py, which says what each
 * method does, with a third of the memory, and whole pieces of a stream answered in one call.
 *
 * An answer is a record in an arena: the question's prefix by number, its hash as 32 bytes where
 * it ends in 64 digits, as it does in practice, the answer likewise. A table of hashes leads to
 * the records. Arena and table together are a generation, of which there are two, as in Python;
 * records are never changed, and freed all at once.
 *
 * Used by one thread that holds the interpreter lock.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum {
    DIGITS = 64,               /* of a hash as text */
    PACKED = DIGITS / 2,       /* its bytes */
    LONGEST = 4096,            /* bytes of a question or an answer that is remembered */
    MOST_REPLY = 1024 * 1024,  /* bytes that are answered in one go; cache.py has it too */
    PREFIXES = 64,             /* remembered by number; more go in whole */
    UNIT = 8,                  /* bytes; records begin at multiples of it, so that 32 bits do */
    FIRST_SLOTS = 256,
    CHUNK_BYTES = 64 * 1024,   /* of the arena */
    HEAD_BYTES = 6,            /* of a record */
    NO_PREFIX = 0xff,
};

/* Of a record. One that is withdrawn stands for an answer that could not be remembered, and hides
 * any former one. */
enum { QUESTION_PACKED = 1, ANSWER_PACKED = 2, WITHDRAWN = 4 };

/* What a record begins with; it is copied out, for records have no alignment to speak of. */
typedef struct {
    uint8_t flags;
    uint8_t prefix;
    uint16_t question; /* bytes that follow, of the question but for a prefix that has a number */
    uint16_t answer;   /* bytes that follow these */
} Head;

_Static_assert(sizeof(Head) == HEAD_BYTES, "a record's head is copied as it is");

typedef struct {
    uint32_t hash;
    uint32_t place; /* of the record, in units, plus one; 0 is an empty slot */
} Slot;

typedef struct {
    char **chunks;
    size_t n_chunks, used; /* bytes of the last chunk */
    Slot *slots;
    size_t n_slots, n_answers, bytes;
} Generation;

typedef struct {
    PyObject_HEAD
    uint64_t seed[2];
    size_t most_bytes; /* of a generation */
    Generation young, old;
    char *prefixes[PREFIXES];
    size_t prefix_lengths[PREFIXES];
    int n_prefixes;
    char *out; /* replies as they grow; kept from call to call */
    size_t out_size, out_used;
} Answers;

/* Text of hashes to bytes and back. */

static int8_t value_of[256];
static char digits_of[256][2];

static void
fill_tables(void)
{
    static const char digits[] = "0123456789abcdef";
    memset(value_of, -1, sizeof value_of);
    for (int i = 0; i < 16; i++) {
        value_of[(unsigned char)digits[i]] = (int8_t)i;
    }
    for (int i = 0; i < 256; i++) {
        digits_of[i][0] = digits[i >> 4];
        digits_of[i][1] = digits[i & 15];
    }
}

/* Pack 64 small hexadecimal digits; return whether they are all that. */
static int
pack(const char *text, char packed[PACKED])
{
    int wrong = 0;
    for (int i = 0; i < PACKED; i++) {
        int high = value_of[(unsigned char)text[2 * i]];
        int low = value_of[(unsigned char)text[2 * i + 1]];
        wrong |= high | low; /* -1 has the sign bit */
        packed[i] = (char)(((unsigned)high << 4) | ((unsigned)low & 15));
    }
    return wrong >= 0;
}

static void
unpack(const char *packed, char *text)
{
    for (int i = 0; i < PACKED; i++) {
        memcpy(text + 2 * i, digits_of[(unsigned char)packed[i]], 2);
    }
}

/* SipHash-1-3: questions are made by others, who must not be able to make slots collide. */

#define ROTATED(x, by) (((x) << (by)) | ((x) >> (64 - (by))))
#define SIP_ROUND                                                         \
    do {                                                                  \
        v0 += v1; v1 = ROTATED(v1, 13) ^ v0; v0 = ROTATED(v0, 32);        \
        v2 += v3; v3 = ROTATED(v3, 16) ^ v2;                              \
        v0 += v3; v3 = ROTATED(v3, 21) ^ v0;                              \
        v2 += v1; v1 = ROTATED(v1, 17) ^ v2; v2 = ROTATED(v2, 32);        \
    } while (0)

static uint32_t
hash_of(const uint64_t seed[2], const char *text, size_t length)
{
    uint64_t v0 = seed[0] ^ 0x736f6d6570736575ULL, v1 = seed[1] ^ 0x646f72616e646f6dULL;
    uint64_t v2 = seed[0] ^ 0x6c7967656e657261ULL, v3 = seed[1] ^ 0x7465646279746573ULL;
    uint64_t word, last = (uint64_t)length << 56;
    size_t rest = length;
    for (; rest >= 8; rest -= 8, text += 8) {
        memcpy(&word, text, 8);
        v3 ^= word;
        SIP_ROUND;
        v0 ^= word;
    }
    for (size_t i = 0; i < rest; i++) {
        last |= (uint64_t)(unsigned char)text[i] << (8 * i);
    }
    v3 ^= last;
    SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    uint64_t hash = v0 ^ v1 ^ v2 ^ v3;
    return (uint32_t)(hash ^ (hash >> 32));
}

/* A question on its way into or through the table. */

typedef struct {
    const char *text;
    size_t length;
    uint32_t hash;
    int packs; /* whether it ends in 64 digits, which are then in `packed` */
    char packed[PACKED];
} Question;

static Question
question_of(const Answers *self, const char *text, size_t length)
{
    Question question = {.text = text, .length = length};
    question.hash = hash_of(self->seed, text, length);
    question.packs = length >= DIGITS && pack(text + length - DIGITS, question.packed);
    return question;
}

/* Generations. */

static void
discard(Generation *generation)
{
    for (size_t i = 0; i < generation->n_chunks; i++) {
        PyMem_Free(generation->chunks[i]);
    }
    PyMem_Free(generation->chunks);
    PyMem_Free(generation->slots);
    memset(generation, 0, sizeof *generation);
}

static const char *
record_at(const Generation *generation, uint32_t place)
{
    size_t at = (size_t)(place - 1) * UNIT;
    return generation->chunks[at / CHUNK_BYTES] + at % CHUNK_BYTES;
}

static int
is_of(const Answers *self, const char *record, const Question *question)
{
    Head head;
    memcpy(&head, record, HEAD_BYTES);
    const char *text = question->text;
    size_t length = question->length;
    if (head.prefix != NO_PREFIX) {
        size_t prefix = self->prefix_lengths[head.prefix];
        if (length < prefix || memcmp(text, self->prefixes[head.prefix], prefix) != 0) {
            return 0;
        }
        text += prefix;
        length -= prefix;
    }
    if (head.flags & QUESTION_PACKED) {
        return question->packs && length == DIGITS &&
               memcmp(record + HEAD_BYTES, question->packed, PACKED) == 0;
    }
    return length == head.question && memcmp(record + HEAD_BYTES, text, length) == 0;
}

/* Return the slot of a question, which is empty where it has no answer. */
static Slot *
slot_of(const Answers *self, const Generation *generation, const Question *question)
{
    size_t mask = generation->n_slots - 1;
    for (size_t at = question->hash & mask;; at = (at + 1) & mask) {
        Slot *slot = &generation->slots[at];
        if (slot->place == 0 ||
            (slot->hash == question->hash &&
             is_of(self, record_at(generation, slot->place), question))) {
            return slot;
        }
    }
}

/* Return the record of a question, or NULL. */
static const char *
find(const Answers *self, const Generation *generation, const Question *question)
{
    if (generation->n_answers == 0) {
        return NULL;
    }
    uint32_t place = slot_of(self, generation, question)->place;
    return place ? record_at(generation, place) : NULL;
}

/* Tell whether one more answer needs more slots: a quarter of them stays empty. */
static int
needs_slots(const Generation *generation)
{
    return 4 * (generation->n_answers + 1) > 3 * generation->n_slots;
}

/* Tell whether one more record, of so many bytes at most, needs another chunk. */
static int
needs_chunk(const Generation *generation, size_t bytes)
{
    return generation->n_chunks == 0 || generation->used + bytes > CHUNK_BYTES;
}

/* Make room for one more answer; return whether there was memory for it. */
static int
reserve_slot(Generation *generation)
{
    if (!needs_slots(generation)) {
        return 1;
    }
    size_t n_slots = generation->n_slots ? 2 * generation->n_slots : FIRST_SLOTS;
    Slot *slots = PyMem_Calloc(n_slots, sizeof *slots);
    if (slots == NULL) {
        return 0;
    }
    for (size_t i = 0; i < generation->n_slots; i++) {
        Slot slot = generation->slots[i];
        if (slot.place) {
            size_t at = slot.hash & (n_slots - 1);
            while (slots[at].place) {
                at = (at + 1) & (n_slots - 1);
            }
            slots[at] = slot;
        }
    }
    PyMem_Free(generation->slots);
    generation->bytes += (n_slots - generation->n_slots) * sizeof *slots;
    generation->slots = slots;
    generation->n_slots = n_slots;
    return 1;
}

/* Return a new record of so many bytes and set its place; NULL where there is no memory for it. */
static char *
new_record(Generation *generation, size_t bytes, uint32_t *place)
{
    bytes = (bytes + UNIT - 1) / UNIT * UNIT;
    if (needs_chunk(generation, bytes)) {
        size_t units = (generation->n_chunks + 1) * (size_t)(CHUNK_BYTES / UNIT);
        char **chunks = PyMem_Realloc(
            generation->chunks, (generation->n_chunks + 1) * sizeof *chunks);
        if (chunks == NULL || units >= UINT32_MAX) {
            generation->chunks = chunks ? chunks : generation->chunks;
            return NULL;
        }
        generation->chunks = chunks;
        chunks[generation->n_chunks] = PyMem_Malloc(CHUNK_BYTES);
        if (chunks[generation->n_chunks] == NULL) {
            return NULL;
        }
        generation->n_chunks++;
        generation->used = 0;
        generation->bytes += CHUNK_BYTES;
    }
    size_t at = (generation->n_chunks - 1) * (size_t)CHUNK_BYTES + generation->used;
    generation->used += bytes;
    *place = (uint32_t)(at / UNIT) + 1;
    return generation->chunks[generation->n_chunks - 1] + at % CHUNK_BYTES;
}

/* Return the number of a prefix, which it may get now, or NO_PREFIX. */
static uint8_t
prefix_number(Answers *self, const char *text, size_t length)
{
    for (int i = 0; i < self->n_prefixes; i++) {
        if (self->prefix_lengths[i] == length && memcmp(self->prefixes[i], text, length) == 0) {
            return (uint8_t)i;
        }
    }
    if (self->n_prefixes == PREFIXES) {
        return NO_PREFIX;
    }
    char *copy = PyMem_Malloc(length ? length : 1);
    if (copy == NULL) {
        return NO_PREFIX;
    }
    memcpy(copy, text, length);
    self->prefixes[self->n_prefixes] = copy;
    self->prefix_lengths[self->n_prefixes] = length;
    return (uint8_t)self->n_prefixes++;
}

static void
forget(Answers *self)
{
    discard(&self->young);
    discard(&self->old);
    for (int i = 0; i < self->n_prefixes; i++) {
        PyMem_Free(self->prefixes[i]);
    }
    self->n_prefixes = 0;
}

/* Make the young generation the old one if one more record would let it grow past its bound. */
static void
keep_bound(Answers *self, size_t bytes)
{
    Generation *young = &self->young;
    size_t growth = 0;
    if (needs_chunk(young, bytes)) {
        growth += CHUNK_BYTES;
    }
    if (needs_slots(young)) {
        growth += (young->n_slots ? young->n_slots : FIRST_SLOTS) * sizeof *young->slots;
    }
    if (young->n_answers && growth && young->bytes + growth > self->most_bytes) {
        discard(&self->old);
        self->old = *young;
        memset(young, 0, sizeof *young);
    }
}

/* Remember an answer in the young generation. One that can't be remembered must at least not leave
 * a former one behind: without memory, all is forgotten. */
static void
remember(Answers *self, const Question *question, const char *answer, size_t length)
{
    if (question->length > LONGEST) {
        return; /* it never had an answer; and who asks it must not cost others theirs */
    }
    Generation *young = &self->young;
    Head head = {.prefix = NO_PREFIX};
    if (length > LONGEST) {
        head.flags = WITHDRAWN;
        length = 0;
    }
    keep_bound(self, HEAD_BYTES + question->length + length + UNIT);
    const char *text = question->text;
    size_t text_length = question->length;
    if (question->packs) {
        head.prefix = prefix_number(self, text, text_length - DIGITS);
        if (head.prefix != NO_PREFIX) {
            head.flags |= QUESTION_PACKED;
            text = question->packed;
            text_length = PACKED;
        }
    }
    char packed[PACKED];
    if (length == DIGITS && pack(answer, packed)) {
        head.flags |= ANSWER_PACKED;
        answer = packed;
        length = PACKED;
    }
    head.question = (uint16_t)text_length;
    head.answer = (uint16_t)length;
    uint32_t place;
    char *record;
    if (!reserve_slot(young) ||
        (record = new_record(young, HEAD_BYTES + text_length + length, &place)) == NULL) {
        forget(self);
        return;
    }
    memcpy(record, &head, HEAD_BYTES);
    memcpy(record + HEAD_BYTES, text, text_length);
    memcpy(record + HEAD_BYTES + text_length, answer, length);
    Slot *slot = slot_of(self, young, question);
    young->n_answers += slot->place == 0;
    slot->hash = question->hash;
    slot->place = place;
}

/* Append the answer to a question to what goes out; return how many bytes that is, -1 where it is
 * not known, -2 without memory. An answer of the old generation becomes one of the young. */
static Py_ssize_t
append_answer(Answers *self, const char *text, size_t length)
{
    Question question = question_of(self, text, length);
    const char *record = find(self, &self->young, &question);
    int is_old = record == NULL;
    if (is_old) {
        record = find(self, &self->old, &question);
        if (record == NULL) {
            return -1;
        }
    }
    Head head;
    memcpy(&head, record, HEAD_BYTES);
    if (head.flags & WITHDRAWN) {
        return -1;
    }
    size_t most = self->out_used + (size_t)head.answer * 2 + 1;
    if (most > self->out_size) {
        size_t size = most * 2;
        char *out = PyMem_Realloc(self->out, size);
        if (out == NULL) {
            return -2;
        }
        self->out = out;
        self->out_size = size;
    }
    char *out = self->out + self->out_used;
    const char *answer = record + HEAD_BYTES + head.question;
    size_t n_bytes = head.answer;
    if (head.flags & ANSWER_PACKED) {
        unpack(answer, out);
        n_bytes = DIGITS;
    }
    else {
        memcpy(out, answer, n_bytes);
    }
    self->out_used += n_bytes;
    if (is_old) {
        remember(self, &question, out, n_bytes);
    }
    return (Py_ssize_t)n_bytes;
}

/* What Python sees. */

static PyObject *
Answers_reply(Answers *self, PyObject *argument)
{
    char *data;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(argument, &data, &length) < 0) {
        return NULL;
    }
    self->out_used = 0;
    for (const char *at = data, *end = data + length; at < end;) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL) {
            Py_RETURN_NONE; /* the last line is not whole */
        }
        Py_ssize_t answered = append_answer(self, at, (size_t)(line_end - at));
        if (answered == -2) {
            return PyErr_NoMemory();
        }
        if (answered < 0) {
            Py_RETURN_NONE;
        }
        self->out[self->out_used++] = '\n';
        if (self->out_used > MOST_REPLY) {
            Py_RETURN_NONE;
        }
        at = line_end + 1;
    }
    return PyBytes_FromStringAndSize(self->out, (Py_ssize_t)self->out_used);
}

static PyObject *
Answers_answers(Answers *self, PyObject *questions)
{
    if (!PyList_Check(questions)) {
        PyErr_SetString(PyExc_TypeError, "a list of questions is needed");
        return NULL;
    }
    PyObject *answers = PyList_New(PyList_GET_SIZE(questions));
    if (answers == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(answers); i++) {
        char *text;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(questions, i), &text, &length) < 0) {
            Py_DECREF(answers);
            return NULL;
        }
        self->out_used = 0;
        Py_ssize_t answered = append_answer(self, text, (size_t)length);
        PyObject *answer = Py_None;
        if (answered == -1) {
            Py_INCREF(answer);
        }
        else {
            answer = answered < 0 ? PyErr_NoMemory()
                                  : PyBytes_FromStringAndSize(self->out, answered);
        }
        if (answer == NULL) {
            Py_DECREF(answers);
            return NULL;
        }
        PyList_SET_ITEM(answers, i, answer);
    }
    return answers;
}

static PyObject *
Answers_put(Answers *self, PyObject *const *arguments, Py_ssize_t n_arguments)
{
    char *question, *answer;
    Py_ssize_t question_length, answer_length;
    if (n_arguments != 2) {
        PyErr_SetString(PyExc_TypeError, "a question and its answer are needed");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &question, &question_length) < 0 ||
        PyBytes_AsStringAndSize(arguments[1], &answer, &answer_length) < 0) {
        return NULL;
    }
    if (self->most_bytes) {
        Question asked = question_of(self, question, (size_t)question_length);
        remember(self, &asked, answer, (size_t)answer_length);
    }
    Py_RETURN_NONE;
}

static PyObject *
Answers_clear(Answers *self, PyObject *Py_UNUSED(argument))
{
    forget(self);
    Py_RETURN_NONE;
}

static Py_ssize_t
Answers_length(Answers *self)
{
    return (Py_ssize_t)(self->young.n_answers + self->old.n_answers);
}

static PyObject *
Answers_get_size(Answers *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->young.bytes + self->old.bytes);
}

static PyObject *
Answers_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"max_bytes", "seed", NULL};
    Py_ssize_t most_bytes;
    Py_buffer seed;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "ny*:CompiledAnswers", names, &most_bytes, &seed)) {
        return NULL;
    }
    Answers *self = NULL;
    if (most_bytes < 0 || seed.len != (Py_ssize_t)sizeof self->seed) {
        PyErr_SetString(PyExc_ValueError, "max_bytes must not be negative, the seed 16 bytes");
    }
    else {
        self = (Answers *)PyType_GenericAlloc(type, 0); /* all zero */
    }
    if (self != NULL) {
        memcpy(self->seed, seed.buf, sizeof self->seed);
        self->most_bytes = (size_t)most_bytes / 2;
    }
    PyBuffer_Release(&seed);
    return (PyObject *)self;
}

static void
Answers_dealloc(Answers *self)
{
    PyTypeObject *type = Py_TYPE(self);
    forget(self);
    PyMem_Free(self->out);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"reply", (PyCFunction)Answers_reply, METH_O, PyDoc_STR("See `AnswerCache.reply`.")},
    {"answers", (PyCFunction)Answers_answers, METH_O, PyDoc_STR("See `AnswerCache.answers`.")},
    {"put", (PyCFunction)(void (*)(void))Answers_put, METH_FASTCALL,
     PyDoc_STR("See `AnswerCache.put`.")},
    {"clear", (PyCFunction)Answers_clear, METH_NOARGS, PyDoc_STR("See `AnswerCache.clear`.")},
    {NULL},
};

static PyGetSetDef getters[] = {
    {"size", (getter)Answers_get_size, NULL, PyDoc_STR("See `AnswerCache.size`."), NULL},
    {NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The compiled cache; see `AnswerCache`.")},
    {Py_tp_new, Answers_new},
    {Py_tp_dealloc, Answers_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, getters},
    {Py_sq_length, Answers_length},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "hashserv.equivalence._answers.CompiledAnswers",
    .basicsize = sizeof(Answers),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = type_slots,
};

static int
execute(PyObject *module)
{
    fill_tables();
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int outcome = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return outcome;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hashserv.equivalence._answers",
    .m_doc = PyDoc_STR("The compiled cache of answers; see `hashserv.equivalence.cache`."),
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__answers(void)
{
    return PyModuleDef_Init(&module);
}
