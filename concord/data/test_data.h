// For tests and fuzzers alone: well-formed bytes of every format, and each parser as one function
// that takes arbitrary bytes.
#pragma once

#include <cstdio>
// jpeglib.h needs <cstdio>.
#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/parser_target.h"
#include "concord/data/cifar.h"
#include "concord/data/csv.h"
#include "concord/data/idx.h"
#include "concord/data/image.h"
#include "concord/data/npy.h"
#include "concord/data/task.h"
#include "concord/data/tokenizer.h"

namespace concord::data {

inline std::string idx_bytes(const std::vector<std::uint32_t>& dims, std::string_view values) {
  std::string bytes{0, 0, 8, static_cast<char>(dims.size())};
  for (const std::uint32_t dim : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(dim >> shift);
  }
  return bytes += values;
}

inline std::string gzip(std::string_view bytes) {
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string result(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  deflate(&stream, Z_FINISH);
  result.resize(stream.total_out);
  deflateEnd(&stream);
  return result;
}

inline std::string cifar_record(CifarKind kind, int label, char pixel) {
  std::string bytes(kind == CifarKind::k100 ? 1 : 0, '\0');
  bytes += static_cast<char>(label);
  return bytes += std::string(3 * 32 * 32, pixel);
}

// `shape` as Python writes a tuple, for example "(2, 3)".
inline std::string npy_bytes(std::string_view type, std::string_view shape, std::string_view data) {
  std::string header = "{'descr': '" + std::string(type) +
                       "', 'fortran_order': False, 'shape': " + std::string(shape) + ", }";
  header += std::string(63 - (header.size() + 10) % 64, ' ') + '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes.append(header).append(data);
}

template <typename T>
std::string npy_bytes(std::string_view type, std::string_view shape, const std::vector<T>& values) {
  return npy_bytes(type, shape,
                   {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

// An image with a gradient along each dim.
inline Image test_image(int height, int width) {
  Image image{height, width, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.pixels.push_back(static_cast<std::uint8_t>(255 * y / height));
      image.pixels.push_back(static_cast<std::uint8_t>(255 * x / width));
      image.pixels.push_back(128);
    }
  }
  return image;
}

// `format`: PNG_FORMAT_RGB, or another with as many bytes per pixel as `pixels` have.
inline std::string png_bytes(const Image& image, png_uint_32 format = PNG_FORMAT_RGB) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = format;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&png, nullptr, &size, 0, image.pixels.data(), 0, nullptr);
  std::string bytes(size, '\0');
  png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr);
  bytes.resize(size);
  return bytes;
}

// The image's bytes per pixel must be those of `space`.
inline std::string jpeg_bytes(const Image& image, J_COLOR_SPACE space = JCS_RGB,
                              bool progressive = false) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = space == JCS_CMYK ? 4 : space == JCS_GRAYSCALE ? 1 : 3;
  info.in_color_space = space;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  if (progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  const std::size_t stride = image.pixels.size() / static_cast<std::size_t>(image.height);
  for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) {
    JSAMPROW row = const_cast<std::uint8_t*>(image.pixels.data()) + y * stride;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  std::string bytes(reinterpret_cast<const char*>(buffer), size);
  jpeg_destroy_compress(&info);
  std::free(buffer);
  return bytes;
}

inline ParserTarget idx_target() {
  const std::string images = idx_bytes({2, 2, 3}, "abcdefghijkl");
  return {"idx",
          {images, idx_bytes({3}, {"\0\1\2", 3}), gzip(images), gzip("")},
          [](std::string_view bytes) { parse_idx(bytes, "input"); }};
}

inline ParserTarget cifar_target() {
  return {"cifar",
          {cifar_record(CifarKind::k10, 3, 'x'), cifar_record(CifarKind::k100, 30, 'y')},
          [](std::string_view bytes) {
            CifarRecords records;
            const CifarKind kind = bytes.size() % 2 == 0 ? CifarKind::k100 : CifarKind::k10;
            parse_cifar(bytes, kind, "input", records);
          }};
}

inline ParserTarget csv_target() {
  return {"csv",
          {"length,colour,class\n1.5,red,a\n2e3,\"da\"\"rk\nblue\",b\r\n\n-3,red,a",
           "\xef\xbb\xbflength,colour,class\n1,,2\n", "1.5,red,a\n2,blue,b\n"},
          [](std::string_view bytes) {
            CsvOptions options;
            options.header = !bytes.starts_with("1");
            options.categorical = {"1"};
            const CsvSchema schema = csv_schema(bytes, options, "input");
            parse_csv(bytes, schema, "input");
            parse_csv_features(bytes, schema, "input");
            options.target_type = TargetType::kValues;
            options.targets = {"0", "-1"};
            parse_csv(bytes, csv_schema(bytes, options, "input"), "input");
          }};
}

inline ParserTarget task_target() {
  CsvOptions options;
  options.categorical = {"colour"};
  Task table{.sample = {3}, .outputs = 2, .class_names = {"a", "b"}};
  table.features = {{0, 1, 2}, {1, 1, 1}};
  table.table = csv_schema("size,colour,kind\n1,red,a\n2,blue,b\n", options, "input");
  const Task image{.sample = {1, 28, 28}, .outputs = 10, .scaled_bytes = true};
  return {"task", {to_json(table).dump(), to_json(image).dump()}, [](std::string_view bytes) {
            const auto json = nlohmann::json::parse(bytes, nullptr, /*allow_exceptions=*/false);
            if (json.is_discarded()) fail("input: not JSON");
            (void)to_json(parse_task(json, "input"));
          }};
}

inline ParserTarget npy_target() {
  return {"npy",
          {npy_bytes<float>("<f4", "(2, 3)", {1, 2, 3, 4, 5, 6}),
           npy_bytes<double>("<f8", "(2,)", {1, 1e300}), npy_bytes("|u1", "(2, 1, 2, 1)", "abcd"),
           npy_bytes<std::int32_t>("<i4", "(3,)", {0, 1, -2}),
           npy_bytes<std::int64_t>("<i8", "(1, 1)", {1})},
          [](std::string_view bytes) {
            const NpyArray array = parse_npy(bytes, "input");
            npy_floats(array, "input");
            npy_integers(array, "input");
          }};
}

inline ParserTarget tokenizer_target() {
  return {
      "tokenizer",
      {R"({"model":{"type":"BPE","unk_token":"?","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4,"?":5},
              "merges":["a b",["Ġ","ab"]],"ignore_merges":true},
              "added_tokens":[{"id":6,"content":"<|x|>","special":true}],
              "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})",
       R"({"model":{"unk_token":"?","vocab":{"?":0,"▁":1,"a":2,"▁a":3,"<0xC3>":4},"merges":["▁ a"],
              "byte_fallback":true},"added_tokens":[{"id":5,"content":"<s>","normalized":true}],
              "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
              {"type":"Replace","pattern":{"String":" "},"content":"▁"}]}})",
       R"({"model":{"unk_token":"?","vocab":{"?":0,"a":1},"merges":[]},"pre_tokenizer":{"type":
              "Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":" ?\\p{L}+|\\s+"},
              "behavior":"Isolated"}]
}
})",
       R"({"model":{"unk_token":"?","vocab":{"?":0,"_":1},"merges":[]},
              "pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"first"}})"},
      [](std::string_view bytes) {
        const Tokenizer tokenizer = Tokenizer::parse(bytes, "input");
        tokenizer.decode(tokenizer.encode("ab  abba<|x|> \u00e9\U0001f600<s> a\n"));
        Tokenizer::from_json(tokenizer.to_json(), "input");
      }};
}

inline ParserTarget image_target() {
  const Image image = test_image(9, 7);
  const Image grey{6, 10, std::vector<std::uint8_t>(60, 200)};
  const Image cmyk{5, 3, std::vector<std::uint8_t>(60, 90)};
  return {"image",
          {png_bytes(image), png_bytes(grey, PNG_FORMAT_GRAY), png_bytes(cmyk, PNG_FORMAT_RGBA),
           jpeg_bytes(image), jpeg_bytes(image, JCS_RGB, true), jpeg_bytes(grey, JCS_GRAYSCALE),
           jpeg_bytes(cmyk, JCS_CMYK)},
          [](std::string_view bytes) {
            const Image decoded = decode_image(bytes, "input", 4);
            std::vector<float> planes(3 * 4 * 4);
            resize_center_square(decoded, 4, planes);
          }};
}

}  // namespace concord::data
