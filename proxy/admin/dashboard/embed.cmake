# cmake -DOUT=dashboard_files.h "-DFILES=a;b" -P embed.cmake: the files as tables of bytes in C.
set(text "/* Made by embed.cmake. */\n")
set(rows "")
set(n 0)
foreach(file IN LISTS FILES)
    get_filename_component(name ${file} NAME)
    file(READ ${file} hex HEX)
    file(SIZE ${file} size)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)"
        "\\1\n" bytes "${bytes}")
    string(APPEND text "static const unsigned char file_${n}[] = {\n${bytes}\n};\n")
    string(APPEND rows "    { \"${name}\", file_${n}, ${size} },\n")
    math(EXPR n "${n} + 1")
endforeach()
string(APPEND text "static const struct { const char *name; const unsigned char *bytes; size_t n; }\n"
    "dashboard_files[] = {\n${rows}};\n")
file(WRITE ${OUT} "${text}")
