// Runs compiled networks under TVM's runtime: once to a file, or several in turn against the clock.
//
//   runner SHAPE INPUT OUTPUT WARMUP RUNS MODEL.so [MODEL.so ...]
//
// SHAPE is 1,C,H,W; INPUT holds float32 in that shape; OUTPUT receives the first model's result.
// Prints one JSON object: milliseconds of every run of every model, and the peak of memory in use.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

struct Heap {
  void AllocData(DLTensor* tensor) {
    size_t bytes = sizeof(float);
    for (int i = 0; i < tensor->ndim; ++i) bytes *= tensor->shape[i];
    tensor->data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!tensor->data) throw std::runtime_error("no memory for a tensor");
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

size_t Bytes(const ffi::Tensor& tensor) {
  size_t bytes = sizeof(float);
  for (int64_t extent : tensor.shape()) bytes *= extent;
  return bytes;
}

ffi::Function Load(const std::string& path) {
  if (!std::ifstream(path)) throw std::runtime_error(path + " cannot be read");
  ffi::Module library = ffi::Module::LoadFromFile(path);
  auto open = library->GetFunction("vm_load_executable");
  if (!open) throw std::runtime_error(path + " holds no network");
  ffi::Module vm = (*open)().cast<ffi::Module>();
  const int cpu = kDLCPU, pooled = 2;
  (*vm->GetFunction("vm_initialization"))(cpu, 0, pooled);
  ffi::Function main = *vm->GetFunction("main");
  // The module must outlive its function.
  return ffi::Function::FromTyped([vm, main](ffi::Tensor input) -> ffi::Tensor {
    return main(input).cast<ffi::Tensor>();
  });
}

// Peak resident memory of this program alone: getrusage would count the process that started it.
size_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::stoull(line.substr(6)) * 1024;
  throw std::runtime_error("/proc/self/status does not say how much memory was used");
}

int Run(int argc, char** argv) {
  if (argc < 7) throw std::runtime_error("usage: SHAPE INPUT OUTPUT WARMUP RUNS MODEL.so ...");
  std::vector<int64_t> shape;
  std::stringstream words(argv[1]);
  for (std::string word; std::getline(words, word, ',');) shape.push_back(std::stoll(word));
  const int warmup = std::stoi(argv[4]), runs = std::stoi(argv[5]);
  ffi::Tensor input = ffi::Tensor::FromNDAlloc(Heap(), ffi::Shape(shape), DLDataType{kDLFloat, 32, 1},
                                               DLDevice{kDLCPU, 0});
  std::ifstream source(argv[2], std::ios::binary);
  source.read(static_cast<char*>(input.data_ptr()), Bytes(input));
  if (static_cast<size_t>(source.gcount()) != Bytes(input))
    throw std::runtime_error(std::string(argv[2]) + " is shorter than the input");

  std::vector<ffi::Function> models;
  for (int i = 6; i < argc; ++i) models.push_back(Load(argv[i]));
  std::vector<std::vector<double>> times(models.size());
  for (int run = 0; run < warmup + runs; ++run) {
    for (size_t i = 0; i < models.size(); ++i) {
      const auto start = std::chrono::steady_clock::now();
      models[i](input);
      const std::chrono::duration<double, std::milli> spent =
          std::chrono::steady_clock::now() - start;
      if (run >= warmup) times[i].push_back(spent.count());
    }
  }
  ffi::Tensor output = models[0](input).cast<ffi::Tensor>();
  std::ofstream sink(argv[3], std::ios::binary);
  sink.write(static_cast<const char*>(output.data_ptr()), Bytes(output));
  sink.close();
  if (!sink) throw std::runtime_error(std::string("cannot write ") + argv[3]);

  std::cout << "{\"peak_bytes\": " << PeakBytes() << ", \"ms\": [";
  for (size_t i = 0; i < times.size(); ++i) {
    std::cout << (i ? ", [" : "[");
    for (size_t j = 0; j < times[i].size(); ++j) std::cout << (j ? ", " : "") << times[i][j];
    std::cout << "]";
  }
  std::cout << "]}" << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "runner: " << error.what() << std::endl;
    return 1;
  }
}
