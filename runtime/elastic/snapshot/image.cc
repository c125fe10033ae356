#include "runtime/elastic/snapshot/image.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/snapshot/policy.h"
#include "runtime/elastic/snapshot/sum.h"

namespace cohort::runtime::elastic {
namespace {

constexpr uint64_t kImageMagic = 0x31474d4954524843;  // "CHRTIMG1", little-endian: another machine's is none

struct Header {
  uint64_t magic;
  uint64_t image_bytes;
  uint64_t table_bytes;
  uint64_t table_sum;
  uint64_t epoch;
  int64_t step;
  uint64_t layout_bytes;
  uint64_t pieces;
  uint64_t header_sum;  // of what stands before it
};
// Behind the header: the layout, then for each piece its entry and its name.
struct Entry {
  uint64_t offset;
  uint64_t bytes;
  uint64_t sum;
  uint64_t name_bytes;
};

uint64_t AlignedUp(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

uint64_t TableBytes(const ImagePlan& plan) {
  uint64_t bytes = plan.layout.size();
  for (const ImagePiece& piece : plan.pieces) bytes += sizeof(Entry) + piece.name.size();
  return bytes;
}

uint64_t HeaderSum(const Header& header) { return SumOf(&header, offsetof(Header, header_sum)); }

}  // namespace

ImagePlan PlanImage(std::vector<ImagePiece> pieces, std::string layout) {
  ImagePlan plan{std::move(layout), std::move(pieces), {}, 0};
  uint64_t at = sizeof(Header) + TableBytes(plan);
  for (const ImagePiece& piece : plan.pieces) {
    at = AlignedUp(at, snapshot_policy::kAlignment);
    plan.offsets.push_back(at);
    at += piece.bytes;
  }
  plan.bytes = AlignedUp(at, snapshot_policy::kAlignment);
  return plan;
}

void WriteImageHead(const ImagePlan& plan, GenerationName name, absl::Span<const uint64_t> sums,
                    absl::Span<std::byte> image) {
  COHORT_CHECK(image.size() >= plan.bytes && sums.size() == plan.pieces.size(), "not of this plan");
  const uint64_t table_bytes = TableBytes(plan);
  std::byte* at = image.data() + sizeof(Header);
  const auto put = [&at](const void* bytes, size_t count) {
    std::memcpy(at, bytes, count);
    at += count;
  };
  put(plan.layout.data(), plan.layout.size());
  for (size_t i = 0; i < plan.pieces.size(); ++i) {
    const Entry entry{plan.offsets[i], plan.pieces[i].bytes, sums[i], plan.pieces[i].name.size()};
    put(&entry, sizeof(entry));
    put(plan.pieces[i].name.data(), plan.pieces[i].name.size());
  }
  Header header{kImageMagic,
                plan.bytes,
                table_bytes,
                SumOf(image.data() + sizeof(Header), table_bytes),
                name.epoch,
                name.step,
                plan.layout.size(),
                plan.pieces.size(),
                0};
  header.header_sum = HeaderSum(header);
  std::memcpy(image.data(), &header, sizeof(header));
}

absl::StatusOr<Image> ReadImage(absl::Span<const std::byte> bytes) {
  const auto broken = [](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("snapshot image: ", what));
  };
  Header header;
  if (bytes.size() < sizeof(header)) return broken("shorter than a header");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kImageMagic || header.header_sum != HeaderSum(header)) return broken("no header");
  if (header.image_bytes > bytes.size() || header.table_bytes > header.image_bytes - sizeof(Header) ||
      header.table_bytes > snapshot_policy::kMostTableBytes || header.pieces > snapshot_policy::kMostPieces) {
    return broken(absl::StrCat("of ", header.image_bytes, " bytes, of which ", bytes.size(), " are there"));
  }
  absl::Span<const std::byte> table = bytes.subspan(sizeof(Header), header.table_bytes);
  // A copy that nobody changes while it is read.
  const std::string text(reinterpret_cast<const char*>(table.data()), table.size());
  if (SumOf(text.data(), text.size()) != header.table_sum) return broken("its table is not what was written");
  absl::string_view rest = text;
  if (header.layout_bytes > rest.size()) return broken("its layout is longer than its table");
  Image image;
  image.name = {header.epoch, header.step};
  image.layout = std::string(rest.substr(0, header.layout_bytes));
  rest.remove_prefix(header.layout_bytes);
  image.bytes = bytes.first(header.image_bytes);
  for (uint64_t i = 0; i < header.pieces; ++i) {
    Entry entry;
    if (rest.size() < sizeof(entry)) return broken("its table ends early");
    std::memcpy(&entry, rest.data(), sizeof(entry));
    rest.remove_prefix(sizeof(entry));
    if (entry.name_bytes > rest.size() || entry.offset > header.image_bytes ||
        entry.bytes > header.image_bytes - entry.offset) {
      return broken("a piece lies outside");
    }
    image.pieces.push_back({std::string(rest.substr(0, entry.name_bytes)),
                            image.bytes.subspan(entry.offset, entry.bytes), entry.sum});
    rest.remove_prefix(entry.name_bytes);
  }
  if (!rest.empty()) return broken("its table is longer than its pieces say");
  return image;
}

const Image::Piece* Image::Find(absl::string_view piece) const {
  for (const Piece& candidate : pieces) {
    if (candidate.name == piece) return &candidate;
  }
  return nullptr;
}

absl::Status VerifyImage(const Image& image) {
  for (const Image::Piece& piece : image.pieces) {
    if (SumOfPiece(piece.data) != piece.sum) {
      return absl::DataLossError(absl::StrCat("snapshot of ", ToString(image.name), ": piece ", piece.name,
                                              " is not what was written"));
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime::elastic
