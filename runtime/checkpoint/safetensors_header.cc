#include "runtime/checkpoint/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/checkpoint/policy.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;

struct TypeName {
  DataType dtype;
  const char* name;
};
constexpr TypeName kTypeNames[] = {
    {DataType::kF32, "F32"}, {DataType::kBF16, "BF16"}, {DataType::kF16, "F16"}, {DataType::kF64, "F64"},
    {DataType::kI8, "I8"},   {DataType::kU8, "U8"},     {DataType::kI32, "I32"}, {DataType::kI64, "I64"},
};

constexpr char kMetadataKey[] = "__metadata__";

std::optional<DataType> ParseTypeName(absl::string_view name) {
  for (const TypeName& row : kTypeNames) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

// The product of shape and element size; nullopt where it does not fit 63 bits. Zero dimensions are left out
// at first, so that shapes whose other dimensions overflow are refused too: nobody can multiply them safely.
std::optional<uint64_t> CheckedBytes(const Shape& shape, DataType dtype) {
  uint64_t bytes = SizeOf(dtype);
  bool empty = false;
  for (int64_t dim : shape) {
    if (dim == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes) ||
               bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return std::nullopt;
    }
  }
  return empty ? 0 : bytes;
}

// Parses with the name of the first key that an object has twice in `duplicate`. Never throws.
json ParseUnique(absl::string_view text, std::string* duplicate, std::string* error) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key) {
      const std::string& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && duplicate->empty()) *duplicate = key.empty() ? "\"\"" : key;
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception& e) {
    *error = e.what();
    return json(json::value_t::discarded);
  }
}

bool IsIndex(const json& value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

struct Extent {
  TensorInfo info;
  uint64_t begin, end;
};

// One tensor's entry. `where` is "FILE: tensor 'NAME'".
absl::StatusOr<Extent> ParseEntry(const std::string& name, const json& value, uint64_t data_bytes,
                                  const std::string& where) {
  const auto error = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", parts...));
  };
  if (!value.is_object()) return error("its entry is not an object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!value.contains(key)) return error("its entry has no '", key, "'");
  }
  const json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string()) return error("dtype is not a string");
  const std::optional<DataType> type = ParseTypeName(dtype.get<std::string>());
  if (!type.has_value()) {
    return error(
        "dtype ", dtype.get<std::string>(), " is not one of ",
        absl::StrJoin(kTypeNames, ", ", [](std::string* out, const TypeName& row) { *out += row.name; }));
  }
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), IsIndex)) {
    return error("shape is not a list of counts");
  }
  Extent extent{{name, *type, {}}, 0, 0};
  for (const json& dim : shape) extent.info.shape.push_back(dim.get<int64_t>());
  const std::string shape_text =
      absl::StrCat(SafetensorsName(*type), " [", absl::StrJoin(extent.info.shape, ","), "]");
  const std::optional<uint64_t> bytes = CheckedBytes(extent.info.shape, *type);
  if (!bytes.has_value()) return error("the size of ", shape_text, " overflows");

  if (!offsets.is_array() || offsets.size() != 2 || !IsIndex(offsets[0]) || !IsIndex(offsets[1])) {
    return error("data_offsets is not a pair of counts");
  }
  extent.begin = offsets[0].get<uint64_t>();
  extent.end = offsets[1].get<uint64_t>();
  if (extent.begin > extent.end || extent.end > data_bytes) {
    return error("data_offsets [", extent.begin, ", ", extent.end, ") lie outside the file's ", data_bytes,
                 " bytes of data (is the file truncated?)");
  }
  if (extent.end - extent.begin != *bytes) {
    return error("data_offsets hold ", extent.end - extent.begin, " bytes, but ", shape_text, " needs ",
                 *bytes);
  }
  return extent;
}

absl::Status ParseMetadata(const json& value, const std::string& file,
                           std::map<std::string, std::string>* out) {
  if (!value.is_object())
    return absl::InvalidArgumentError(absl::StrCat(file, ": __metadata__ is not an object"));
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": __metadata__ '", key, "' is not a string"));
    }
    (*out)[key] = text.get<std::string>();
  }
  return absl::OkStatus();
}

}  // namespace

const char* SafetensorsName(DataType dtype) {
  for (const TypeName& row : kTypeNames) {
    if (row.dtype == dtype) return row.name;
  }
  COHORT_CHECK(false, "%s has no safetensors name", Name(dtype));
}

uint64_t TensorInfo::bytes() const {
  const std::optional<uint64_t> bytes = CheckedBytes(shape, dtype);
  COHORT_CHECK(bytes.has_value(), "the size of tensor %s overflows", name.c_str());
  return *bytes;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text, uint64_t data_bytes,
                                                         const std::string& file) {
  std::string duplicate, problem;
  const json header = ParseUnique(text, &duplicate, &problem);
  if (!problem.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the header is not JSON: ", problem));
  }
  if (!header.is_object())
    return absl::InvalidArgumentError(absl::StrCat(file, ": the header is not an object"));
  if (!duplicate.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the header has '", duplicate, "' twice"));
  }

  SafetensorsHeader result;
  std::vector<Extent> extents;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadataKey) {
      COHORT_RETURN_IF_ERROR(ParseMetadata(value, file, &result.metadata));
      continue;
    }
    COHORT_ASSIGN_OR_RETURN(Extent extent,
                            ParseEntry(name, value, data_bytes, absl::StrCat(file, ": tensor '", name, "'")));
    extents.push_back(std::move(extent));
  }

  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::tie(a.begin, a.end, a.info.name) < std::tie(b.begin, b.end, b.info.name);
  });
  uint64_t covered = 0;
  for (Extent& extent : extents) {
    if (extent.begin != covered) {
      return absl::InvalidArgumentError(absl::StrCat(
          file, ": tensor '", extent.info.name, "' begins at byte ", extent.begin,
          extent.begin < covered ? ", inside the one before it, which ends at " : ", a gap after ", covered));
    }
    covered = extent.end;
    result.offsets.push_back(extent.begin);
    result.tensors.push_back(std::move(extent.info));
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", data_bytes - covered, " bytes after the last tensor belong to none"));
  }
  return result;
}

std::string MakeSafetensorsHeader(const std::vector<TensorInfo>& tensors,
                                  const std::map<std::string, std::string>& metadata) {
  // By hand and in order: an ordered JSON object looks its keys up one by one.
  const auto quote = [](const std::string& text) {
    return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
  };
  std::vector<std::string> entries;
  if (!metadata.empty()) {
    entries.push_back(absl::StrCat(
        "\"", kMetadataKey, "\":", json(metadata).dump(-1, ' ', false, json::error_handler_t::replace)));
  }
  std::set<absl::string_view> names = {kMetadataKey};
  uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    COHORT_CHECK(names.insert(tensor.name).second, "tensor %s twice in a file", tensor.name.c_str());
    const uint64_t end = offset + tensor.bytes();
    entries.push_back(absl::StrCat(quote(tensor.name), ":{\"dtype\":\"", SafetensorsName(tensor.dtype),
                                   "\",\"shape\":[", absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                                   offset, ",", end, "]}"));
    offset = end;
  }
  std::string text = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  constexpr size_t kAlign = checkpoint_policy::kDataAlignment;
  text.append((kAlign - (sizeof(uint64_t) + text.size()) % kAlign) % kAlign, ' ');
  const uint64_t length = text.size();  // little-endian, as every machine this runs on
  std::string result(reinterpret_cast<const char*>(&length), sizeof(length));
  return result + text;
}

}  // namespace cohort::runtime
