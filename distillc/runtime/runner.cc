// Runs compiled networks under TVM's runtime: once to a file, or several in turn against the clock.
//
//   runner SHAPE INPUT OUTPUT WARMUP RUNS MODEL.so [MODEL.so ...]
//
// SHAPE is 1,C,H,W; INPUT holds float32 images of that shape, one or more; OUTPUT receives what the
// first model makes of each. The first image serves for the clock. Prints one JSON object:
// milliseconds of every run of every model, and the peak of memory in use.
//
//   runner --kernels LIBRARY.so SHAPES OUTPUTS WARMUP RUNS NAME [NAME ...]
//
// Runs single kernels of a library in turn, all with the same operands: random float32 of SHAPES,
// say 1,48,64;48,48;1,48,64, of which the last OUTPUTS are written. Prints the milliseconds and, for
// each kernel, the largest difference of its outputs from the first one's, over their largest value.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <random>
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

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

ffi::Tensor MakeTensor(const std::string& text) {
  std::vector<int64_t> shape;
  for (const std::string& word : Split(text, ',')) shape.push_back(std::stoll(word));
  return ffi::Tensor::FromNDAlloc(Heap(), ffi::Shape(shape), DLDataType{kDLFloat, 32, 1},
                                  DLDevice{kDLCPU, 0});
}

using Times = std::vector<std::vector<double>>;

// Milliseconds of each run of each function, the functions in turn.
template <typename Call>
Times Race(size_t count, int warmup, int runs, Call call) {
  Times times(count);
  for (int run = 0; run < warmup + runs; ++run) {
    for (size_t i = 0; i < count; ++i) {
      const auto start = std::chrono::steady_clock::now();
      call(i);
      const std::chrono::duration<double, std::milli> spent =
          std::chrono::steady_clock::now() - start;
      if (run >= warmup) times[i].push_back(spent.count());
    }
  }
  return times;
}

void PrintTimes(const Times& times) {
  std::cout << "\"ms\": [";
  for (size_t i = 0; i < times.size(); ++i) {
    std::cout << (i ? ", [" : "[");
    for (size_t j = 0; j < times[i].size(); ++j) std::cout << (j ? ", " : "") << times[i][j];
    std::cout << "]";
  }
  std::cout << "]";
}

// The largest difference over the largest value, where both are finite; 1 where only one is.
double Difference(const std::vector<float>& expected, const std::vector<float>& found) {
  double largest = 1e-30, difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isfinite(expected[i]) != std::isfinite(found[i])) return 1;
    if (!std::isfinite(expected[i])) continue;
    largest = std::max<double>(largest, std::abs(expected[i]));
    difference = std::max<double>(difference, std::abs(expected[i] - found[i]));
  }
  return difference / largest;
}

int RunKernels(int argc, char** argv) {
  if (argc < 8) throw std::runtime_error("usage: --kernels LIBRARY SHAPES OUTPUTS WARMUP RUNS ...");
  ffi::Module library = ffi::Module::LoadFromFile(argv[2]);
  const size_t outputs = std::stoul(argv[4]);
  std::vector<ffi::Tensor> operands;
  std::vector<ffi::AnyView> views;
  std::minstd_rand random(1);
  for (const std::string& shape : Split(argv[3], ';')) {
    operands.push_back(MakeTensor(shape));
    float* data = static_cast<float*>(operands.back().data_ptr());
    for (size_t i = 0; i < Bytes(operands.back()) / sizeof(float); ++i)
      data[i] = 2.0f * random() / random.max() - 1.0f;
  }
  for (const ffi::Tensor& operand : operands) views.push_back(operand);
  std::vector<ffi::Function> kernels;
  for (int i = 7; i < argc; ++i) {
    auto kernel = library->GetFunction(argv[i]);
    if (!kernel) throw std::runtime_error(std::string("no kernel named ") + argv[i]);
    kernels.push_back(*kernel);
  }
  auto call = [&](size_t i) {
    ffi::Any result;
    kernels[i].CallPacked(views.data(), static_cast<int32_t>(views.size()), &result);
  };
  const Times times = Race(kernels.size(), std::stoi(argv[5]), std::stoi(argv[6]), call);
  std::cout << "{";
  PrintTimes(times);
  std::cout << ", \"errors\": [";
  std::vector<float> expected;
  for (size_t i = 0; i < kernels.size(); ++i) {
    std::vector<float> found;
    // Not a number in every byte: what a kernel leaves out is seen.
    for (size_t j = operands.size() - outputs; j < operands.size(); ++j)
      std::memset(operands[j].data_ptr(), 0xff, Bytes(operands[j]));
    call(i);
    for (size_t j = operands.size() - outputs; j < operands.size(); ++j) {
      const float* data = static_cast<const float*>(operands[j].data_ptr());
      found.insert(found.end(), data, data + Bytes(operands[j]) / sizeof(float));
    }
    if (i == 0) expected = found;
    std::cout << (i ? ", " : "") << Difference(expected, found);
  }
  std::cout << "]}" << std::endl;
  return 0;
}

int Run(int argc, char** argv) {
  if (argc < 7) throw std::runtime_error("usage: SHAPE INPUT OUTPUT WARMUP RUNS MODEL.so ...");
  ffi::Tensor input = MakeTensor(argv[1]);
  std::ifstream source(argv[2], std::ios::binary);
  auto next = [&] {
    source.read(static_cast<char*>(input.data_ptr()), Bytes(input));
    const size_t got = source.gcount();
    if (got && got != Bytes(input))
      throw std::runtime_error(std::string(argv[2]) + " is shorter than the input");
    return got > 0;
  };
  if (!next()) throw std::runtime_error(std::string(argv[2]) + " holds no input");

  std::vector<ffi::Function> models;
  for (int i = 6; i < argc; ++i) models.push_back(Load(argv[i]));
  const Times times = Race(models.size(), std::stoi(argv[4]), std::stoi(argv[5]),
                           [&](size_t i) { models[i](input); });
  std::ofstream sink(argv[3], std::ios::binary);
  do {
    ffi::Tensor output = models[0](input).cast<ffi::Tensor>();
    sink.write(static_cast<const char*>(output.data_ptr()), Bytes(output));
  } while (sink && next());
  sink.close();
  if (!sink) throw std::runtime_error(std::string("cannot write ") + argv[3]);

  std::cout << "{\"peak_bytes\": " << PeakBytes() << ", ";
  PrintTimes(times);
  std::cout << "}" << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const bool kernels = argc > 1 && std::string(argv[1]) == "--kernels";
    return kernels ? RunKernels(argc, argv) : Run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "runner: " << error.what() << std::endl;
    return 1;
  }
}
