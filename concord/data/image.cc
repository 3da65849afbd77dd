#include "concord/data/image.h"

#include <csetjmp>
#include <cstddef>
#include <cstdio>
// jpeglib.h needs the two headers above.
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "concord/base/error.h"

namespace concord::data {
namespace {

constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;
// A progressive JPEG of a few bytes can ask for thousands of passes over a large image.
constexpr int kMaxScans = 200;

void check_size(std::int64_t height, std::int64_t width, std::string_view source) {
  if (height <= 0 || width <= 0 || height > kMaxPixels / width) {
    fail("{}: an image of {} x {} pixels: expected at most {} in all", source, width, height,
         kMaxPixels);
  }
}

// libjpeg reports errors by a callback that must not return; it jumps back to decode_jpeg.
struct JpegDecoder {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf on_error;
  char message[JMSG_LENGTH_MAX] = {};

  JpegDecoder() {
    info.err = jpeg_std_error(&errors);
    errors.error_exit = &JpegDecoder::exit_with_message;
    errors.emit_message = &JpegDecoder::on_message;
    progress.progress_monitor = &JpegDecoder::limit_scans;
    info.client_data = this;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&info); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  static void exit_with_message(j_common_ptr common) {
    auto* self = static_cast<JpegDecoder*>(common->client_data);
    self->errors.format_message(common, self->message);
    std::longjmp(self->on_error, 1);
  }
  // Level -1 is a warning. Some mean lost pixels; these few do not, and occur in good data sets.
  static void on_message(j_common_ptr common, int level) {
    const int code = common->err->msg_code;
    if (level >= 0 || code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM ||
        code == JWRN_JFIF_MAJOR) {
      return;
    }
    exit_with_message(common);
  }
  static void limit_scans(j_common_ptr common) {
    if (reinterpret_cast<j_decompress_ptr>(common)->input_scan_number <= kMaxScans) return;
    auto* self = static_cast<JpegDecoder*>(common->client_data);
    std::snprintf(self->message, sizeof(self->message), "more than %d scans", kMaxScans);
    std::longjmp(self->on_error, 1);
  }
};

// The four steps below run under setjmp: nothing in them may own memory.
bool read_header(JpegDecoder& decoder, std::string_view bytes) {
  if (setjmp(decoder.on_error) != 0) return false;
  jpeg_create_decompress(&decoder.info);
  decoder.info.progress = &decoder.progress;
  jpeg_mem_src(&decoder.info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&decoder.info, TRUE);
  return true;
}

bool start(JpegDecoder& decoder, int min_side) {
  if (setjmp(decoder.on_error) != 0) return false;
  jpeg_decompress_struct& info = decoder.info;
  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  const std::int64_t side = std::min(info.image_width, info.image_height);
  info.scale_num = 1;
  info.scale_denom = 1;
  while (info.scale_denom < 8 && side / (2 * info.scale_denom) >= min_side) info.scale_denom *= 2;
  jpeg_start_decompress(&info);
  return true;
}

bool read_rows(JpegDecoder& decoder, std::uint8_t* pixels) {
  if (setjmp(decoder.on_error) != 0) return false;
  jpeg_decompress_struct& info = decoder.info;
  const std::size_t stride =
      std::size_t{info.output_width} * static_cast<std::size_t>(info.output_components);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels + info.output_scanline * stride;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

// CMYK to RGB. Adobe's files, which are nearly all there are, store the inks inverted.
std::vector<std::uint8_t> rgb_from_cmyk(const std::vector<std::uint8_t>& cmyk, bool inverted) {
  std::vector<std::uint8_t> rgb;
  rgb.reserve(cmyk.size() / 4 * 3);
  for (std::size_t i = 0; i < cmyk.size(); i += 4) {
    const int light = inverted ? cmyk[i + 3] : 255 - cmyk[i + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      const int value = inverted ? cmyk[i + c] : 255 - cmyk[i + c];
      rgb.push_back(static_cast<std::uint8_t>(value * light / 255));
    }
  }
  return rgb;
}

Image decode_jpeg(std::string_view bytes, std::string_view source, int min_side) {
  JpegDecoder decoder;
  const auto check = [&](bool succeeded) {
    if (!succeeded) fail("{}: corrupt JPEG image: {}", source, decoder.message);
  };
  check(read_header(decoder, bytes));
  check_size(decoder.info.image_height, decoder.info.image_width, source);
  check(start(decoder, min_side));
  Image image{static_cast<int>(decoder.info.output_height),
              static_cast<int>(decoder.info.output_width),
              {}};
  const int components = decoder.info.output_components;
  CONCORD_CHECK(components == 3 || components == 4);
  image.pixels.resize(std::size_t{decoder.info.output_height} * decoder.info.output_width *
                      static_cast<std::size_t>(components));
  check(read_rows(decoder, image.pixels.data()));
  if (components == 4) {
    image.pixels = rgb_from_cmyk(image.pixels, decoder.info.saw_Adobe_marker != FALSE);
  }
  return image;
}

Image decode_png(std::string_view bytes, std::string_view source) {
  struct Decoder {
    png_image image{};
    ~Decoder() { png_image_free(&image); }
  } decoder;
  png_image& png = decoder.image;
  png.version = PNG_IMAGE_VERSION;
  const auto check = [&](bool succeeded) {
    // libpng sets warning_or_error to 1 for a warning, 2 and above for an error.
    if (!succeeded || png.warning_or_error > 1) {
      fail("{}: corrupt PNG image: {}", source, png.message);
    }
  };
  check(png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) != 0);
  check_size(png.height, png.width, source);
  png.format = PNG_FORMAT_RGB;
  Image image{static_cast<int>(png.height), static_cast<int>(png.width), {}};
  image.pixels.resize(PNG_IMAGE_SIZE(png));
  const png_color black{};
  check(png_image_finish_read(&png, &black, image.pixels.data(), 0, nullptr) != 0);
  return image;
}

// Weights of the input pixels that make up one output pixel along one dim; they sum to 1.
struct Taps {
  int first = 0;
  std::vector<float> weights;
};

std::vector<Taps> triangle_taps(int input, int output) {
  const double scale = static_cast<double>(input) / output;
  const double support = std::max(scale, 1.0);
  std::vector<Taps> taps(static_cast<std::size_t>(output));
  for (int i = 0; i < output; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(center - support)));
    const int end = std::min(input, static_cast<int>(std::ceil(center + support)));
    std::vector<double> weights;
    double sum = 0;
    for (int k = first; k < end; ++k) {
      weights.push_back(std::max(0.0, 1.0 - std::abs(k + 0.5 - center) / support));
      sum += weights.back();
    }
    Taps& tap = taps[static_cast<std::size_t>(i)];
    tap.first = first;
    for (const double weight : weights) tap.weights.push_back(static_cast<float>(weight / sum));
  }
  return taps;
}

}  // namespace

Image decode_image(std::string_view bytes, std::string_view source, int min_side) {
  if (bytes.starts_with("\xff\xd8\xff")) return decode_jpeg(bytes, source, min_side);
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return decode_png(bytes, source);
  fail("{}: neither a JPEG nor a PNG image ({} bytes)", source, bytes.size());
}

void resize_center_square(const Image& image, int size, std::span<float> planes) {
  const int side = std::min(image.height, image.width);
  const int top = (image.height - side) / 2;
  const int left = (image.width - side) / 2;
  CONCORD_CHECK(size > 0 && side > 0 && planes.size() == std::size_t{3} * size * size);
  const std::vector<Taps> taps = triangle_taps(side, size);
  const auto stride = static_cast<std::size_t>(size);

  // Rows first: [side, size, 3]; then columns, into planes.
  std::vector<float> narrow(static_cast<std::size_t>(side) * stride * 3);
  for (int y = 0; y < side; ++y) {
    const std::uint8_t* row =
        image.pixels.data() + (static_cast<std::size_t>(top + y) * image.width + left) * 3;
    float* out = narrow.data() + static_cast<std::size_t>(y) * stride * 3;
    for (std::size_t x = 0; x < stride; ++x, out += 3) {
      const std::uint8_t* pixel = row + static_cast<std::size_t>(taps[x].first) * 3;
      float red = 0, green = 0, blue = 0;
      for (const float weight : taps[x].weights) {
        red += weight * static_cast<float>(pixel[0]);
        green += weight * static_cast<float>(pixel[1]);
        blue += weight * static_cast<float>(pixel[2]);
        pixel += 3;
      }
      out[0] = red, out[1] = green, out[2] = blue;
    }
  }
  std::vector<float> row(stride * 3);
  for (std::size_t y = 0; y < stride; ++y) {
    std::ranges::fill(row, 0.0f);
    const float* in = narrow.data() + static_cast<std::size_t>(taps[y].first) * stride * 3;
    for (const float weight : taps[y].weights) {
      for (std::size_t i = 0; i < row.size(); ++i) row[i] += weight * in[i];
      in += stride * 3;
    }
    for (std::size_t x = 0; x < stride; ++x) {
      for (std::size_t c = 0; c < 3; ++c) {
        planes[(c * stride + y) * stride + x] = row[x * 3 + c] / 255.0f;
      }
    }
  }
}

}  // namespace concord::data
