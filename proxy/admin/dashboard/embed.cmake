# cmake -DOUT=dashboard_files.h "-DFILES=a;b" -P embed.cmake: the files as tables of bytes in C.
# Each as it is and as gzip makes it.
set(text "/* Made by embed.cmake. */\n")
set(rows "")
set(n 0)

function(add_bytes file what)
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)"
        "\\1\n" bytes "${bytes}")
    set(text "${text}static const unsigned char ${what}_${n}[] = {\n${bytes}\n};\n" PARENT_SCOPE)
endfunction()

foreach(file IN LISTS FILES)
    get_filename_component(name ${file} NAME)
    execute_process(COMMAND gzip -9nc ${file} OUTPUT_FILE ${OUT}.gz COMMAND_ERROR_IS_FATAL ANY)
    add_bytes(${file} file)
    add_bytes(${OUT}.gz gzip)
    string(APPEND rows "    { \"${name}\", { file_${n}, gzip_${n} }, { sizeof file_${n}, sizeof gzip_${n} } },\n")
    math(EXPR n "${n} + 1")
endforeach()
string(APPEND text "static const struct { const char *name; const unsigned char *bytes[2]; size_t n[2]; }\n"
    "dashboard_files[] = {\n${rows}};\n")
file(REMOVE ${OUT}.gz)
file(WRITE ${OUT} "${text}")
