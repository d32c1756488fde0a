// libnvrtc: what it makes of a program is the program's name, by which the emulated driver finds the kernels.
#include <cstring>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Program {
    std::string image;
};

EXPORT int nvrtcVersion(int* major, int* minor) { *major = 0; *minor = 0; return 0; }
EXPORT int nvrtcGetNumSupportedArchs(int* count) { *count = 1; return 0; }
EXPORT int nvrtcGetSupportedArchs(int* known) { known[0] = 90; return 0; }
EXPORT int nvrtcCreateProgram(Program** program, const char*, const char* name, int, const char* const*, const char* const*) {
    std::string file(name);
    *program = new Program{"emulated kernels " + file.substr(0, file.rfind('.'))};
    return 0;
}
EXPORT int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return 0; }
EXPORT int nvrtcCompileProgram(Program*, int, const char* const*) { return 0; }
EXPORT int nvrtcGetPTXSize(Program* program, size_t* bytes) { *bytes = program->image.size() + 1; return 0; }
EXPORT int nvrtcGetPTX(Program* program, char* ptx) { std::strcpy(ptx, program->image.c_str()); return 0; }
EXPORT int nvrtcGetCUBINSize(Program* program, size_t* bytes) { *bytes = program->image.size(); return 0; }
EXPORT int nvrtcGetCUBIN(Program* program, char* code) {
    std::memcpy(code, program->image.data(), program->image.size());
    return 0;
}
EXPORT int nvrtcGetProgramLogSize(Program*, size_t* bytes) { *bytes = 1; return 0; }
EXPORT int nvrtcGetProgramLog(Program*, char* log) { *log = 0; return 0; }
EXPORT const char* nvrtcGetErrorString(int) { return "an error of the emulated compiler"; }
