#include "comm/transfer/card.h"

#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace cohort::comm::transfer {
namespace {

constexpr absl::string_view kFormat = "cohort-transfer-2";

}  // namespace

uint64_t RandomNumber() {
  std::random_device source;
  return (static_cast<uint64_t>(source()) << 32 | source()) | 2;
}

std::string Card::ToText() const {
  std::string text = absl::StrCat(kFormat, " ", engine, " ", absl::Base64Escape(name), " ",
                                  absl::Base64Escape(host), " ", absl::Base64Escape(local));
  for (const Rail& rail : rails)
    absl::StrAppend(&text, " ", absl::Base64Escape(rail.address), ":", absl::Base64Escape(rail.interface));
  return text;
}

absl::StatusOr<Card> Card::FromText(const std::string& text) {
  // An empty field is an empty string, between two spaces.
  const std::vector<std::string> fields = absl::StrSplit(text, ' ');
  Card card;
  bool good = fields.size() >= 6 && fields[0] == kFormat && absl::SimpleAtoi(fields[1], &card.engine) &&
              card.engine > 1 && absl::Base64Unescape(fields[2], &card.name) &&
              absl::Base64Unescape(fields[3], &card.host) && absl::Base64Unescape(fields[4], &card.local);
  for (size_t i = 5; good && i < fields.size(); ++i) {
    const std::vector<std::string> parts = absl::StrSplit(fields[i], ':');
    Rail& rail = card.rails.emplace_back();
    good = parts.size() == 2 && absl::Base64Unescape(parts[0], &rail.address) && !rail.address.empty() &&
           absl::Base64Unescape(parts[1], &rail.interface);
  }
  if (!good) {
    return absl::InvalidArgumentError(absl::StrCat("'", absl::CEscape(text.substr(0, 100)),
                                                   "' is not the card of a transfer engine of this version "
                                                   "(TransferEngine::Card makes it)"));
  }
  return card;
}

}  // namespace cohort::comm::transfer
