// ModelConfig from and to Hugging Face's config.json.
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/file.h"
#include "runtime/model/families.h"
#include "runtime/model/model_config.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;

// Reads fields of one object and remembers the first error, so that the list of fields reads as a list. A
// field that is null counts as missing.
class Reader {
 public:
  Reader(const json& object, std::string where, absl::Status& status)
      : object_(object), where_(std::move(where)), status_(status) {}

  const json* Find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  bool Has(const std::string& key) const { return Find(key) != nullptr; }

  void Fail(const std::string& key, absl::string_view problem) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": \"", key, "\" ", problem));
  }

  // Without a fallback (the value already in `out`) the field must be there.
  template <typename T>
  void Required(const std::string& key, T& out) {
    if (!Has(key)) return Fail(key, "is missing");
    Optional(key, out);
  }
  void Optional(const std::string& key, int64_t& out) {
    if (const json* value = Find(key)) Int(key, *value, out);
  }
  void Optional(const std::string& key, double& out) {
    const json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_number()) return Fail(key, absl::StrCat("must be a number, it is ", Show(*value)));
    out = value->get<double>();
  }
  void Optional(const std::string& key, bool& out) {
    const json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fail(key, absl::StrCat("must be true or false, it is ", Show(*value)));
    out = value->get<bool>();
  }
  void Optional(const std::string& key, std::string& out) {
    const json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(key, absl::StrCat("must be a string, it is ", Show(*value)));
    out = value->get<std::string>();
  }
  // A list of integers, or one integer.
  void Optional(const std::string& key, std::vector<int64_t>& out) {
    const json* value = Find(key);
    if (value == nullptr) return;
    out.clear();
    for (const json& item : value->is_array() ? *value : json::array({*value})) {
      int64_t number = 0;
      Int(key, item, number);
      out.push_back(number);
    }
  }
  // The object under `key`, or an empty one.
  Reader Object(const std::string& key) {
    static const json& empty = *new json(json::object());
    const json* value = Find(key);
    if (value != nullptr && !value->is_object()) {
      Fail(key, absl::StrCat("must be an object, it is ", Show(*value)));
      value = nullptr;
    }
    return Reader(value == nullptr ? empty : *value, absl::StrCat(where_, ": ", key), status_);
  }

  // The field must be missing, or be this value: we compute nothing else.
  void Only(const std::string& key, const json& value, absl::string_view reason) {
    const json* found = Find(key);
    if (found != nullptr && *found != value) {
      Fail(key, absl::StrCat("is ", Show(*found), ", but only ", Show(value), " is supported: ", reason));
    }
  }

 private:
  static std::string Show(const json& value) {
    const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
    return text.size() <= 80 ? text : absl::StrCat(text.substr(0, 77), "...");
  }
  void Int(const std::string& key, const json& value, int64_t& out) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
      return Fail(key, absl::StrCat("must be an integer, it is ", Show(value)));
    }
    out = value.get<int64_t>();
  }

  const json& object_;
  std::string where_;
  absl::Status& status_;
};

// Older files have rope_theta and rope_scaling {type or rope_type, ...}; files of transformers 5 have both in
// rope_parameters.
void ReadRope(Reader& top, const Family& family, ModelConfig& config) {
  config.rope_theta = family.default_rope_theta;
  top.Optional("rope_theta", config.rope_theta);
  RopeScaling& scaling = config.rope_scaling;
  Reader rope = top.Object(top.Has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  rope.Optional("rope_theta", config.rope_theta);
  rope.Optional("type", scaling.type);
  rope.Optional("rope_type", scaling.type);
  if (scaling.type == "default") return;
  rope.Required("factor", scaling.factor);
  if (scaling.type != "llama3") return;
  rope.Required("low_freq_factor", scaling.low_freq_factor);
  rope.Required("high_freq_factor", scaling.high_freq_factor);
  rope.Required("original_max_position_embeddings", scaling.original_max_position);
}

void ReadExperts(Reader& top, const Family& family, ModelConfig& config) {
  top.Required(family.num_experts_field, config.num_experts);
  top.Required("num_experts_per_tok", config.num_experts_per_tok);
  top.Optional("shared_expert_intermediate_size", config.shared_expert_intermediate_size);
  config.moe_intermediate_size = config.intermediate_size;
  if (family.own_moe_width) {
    top.Required("moe_intermediate_size", config.moe_intermediate_size);
    top.Optional("decoder_sparse_step", config.decoder_sparse_step);
    top.Optional("mlp_only_layers", config.mlp_only_layers);
  }
  RouterConfig& router = config.router;
  router.normalize_weights = !family.choose_normalize;  // Qwen3-MoE's default is not to
  top.Optional("norm_topk_prob", router.normalize_weights);
  router.aux_loss_coef = 0.001;  // both families' default
  top.Optional("router_aux_loss_coef", router.aux_loss_coef);
  Reader ours = top.Object("router");  // what Hugging Face has no fields for
  ours.Optional("gate", router.gate);
  ours.Optional("z_loss_coef", router.z_loss_coef);
  ours.Optional("bias_update_rate", router.bias_update_rate);
  ours.Optional("capacity_factor", router.capacity_factor);
}

// Features that other models of these families may ask for and that would be computed wrongly if ignored.
void RefuseUnsupported(Reader& top, const ModelConfig& config) {
  top.Only("attention_bias", false, "projections have no biases here");
  top.Only("mlp_bias", false, "projections have no biases here");
  top.Only("hidden_act", "silu", "feed-forwards are SwiGLU");
  if (top.Has("quantization_config"))
    top.Fail("quantization_config", "is there, but quantized weights are not read");
  bool uses_window = true;
  top.Optional("use_sliding_window", uses_window);
  int64_t window = config.max_position_embeddings;
  top.Optional("sliding_window", window);
  if (uses_window && window < config.max_position_embeddings) {
    top.Fail("sliding_window",
             absl::StrCat("is ", window, ", below max_position_embeddings (", config.max_position_embeddings,
                          "): sliding-window attention is not supported. Lower "
                          "max_position_embeddings to the window to use the model within it"));
  }
  if (const json* types = top.Find("layer_types")) {
    for (const json& type : *types) {
      if (type != "full_attention") top.Fail("layer_types", "may only list full_attention");
    }
  }
}

absl::Status Read(const json& root, const std::string& file, ModelConfig& config) {
  absl::Status status;
  Reader top(root, file, status);
  top.Required("model_type", config.model_type);
  if (!status.ok()) return status;
  const Family* family = FindFamily(config.model_type);
  if (family == nullptr) {
    top.Fail("model_type",
             absl::StrCat("is \"", config.model_type, "\", which is not supported. Known: ", FamilyNames()));
    return status;
  }
  top.Required("vocab_size", config.vocab_size);
  top.Required("hidden_size", config.hidden_size);
  top.Required("intermediate_size", config.intermediate_size);
  top.Required("num_hidden_layers", config.num_hidden_layers);
  top.Required("num_attention_heads", config.num_attention_heads);
  config.num_key_value_heads = config.num_attention_heads;
  if (family->default_kv_heads) {
    top.Optional("num_key_value_heads", config.num_key_value_heads);
  } else {
    top.Required("num_key_value_heads", config.num_key_value_heads);
  }
  config.head_dim = family->default_head_dim;
  top.Optional("head_dim", config.head_dim);
  if (config.head_dim == 0 && config.num_attention_heads > 0) {
    if (config.hidden_size % config.num_attention_heads != 0) {
      top.Fail("head_dim", "is missing, and num_attention_heads does not divide hidden_size");
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  top.Required("max_position_embeddings", config.max_position_embeddings);
  top.Required("rms_norm_eps", config.rms_norm_eps);
  top.Optional("tie_word_embeddings", config.tie_word_embeddings);
  top.Optional("initializer_range", config.initializer_range);
  config.qk_norm = family->qk_norm;
  ReadRope(top, *family, config);
  if (family->sparse) ReadExperts(top, *family, config);
  RefuseUnsupported(top, config);

  if (top.Has("bos_token_id")) {
    int64_t bos = 0;
    top.Optional("bos_token_id", bos);
    config.bos_token_id = bos;
  }
  top.Optional("eos_token_id", config.eos_token_ids);
  top.Optional("dtype", config.torch_dtype);  // transformers 5
  top.Optional("torch_dtype", config.torch_dtype);
  if (!status.ok()) return status;
  status = config.Validate();
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", status.message()));
  return status;
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::FromJson(const std::string& text, const std::string& file) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, " is not valid JSON: ", error.what()));
  }
  if (!root.is_object()) return absl::InvalidArgumentError(absl::StrCat(file, " is not a JSON object"));
  ModelConfig config;
  COHORT_RETURN_IF_ERROR(Read(root, file, config));
  return config;
}

absl::StatusOr<ModelConfig> ModelConfig::Load(const std::string& folder) {
  const std::string file = absl::StrCat(folder, "/config.json");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    if (errno != ENOENT) return ErrnoStatus(errno, "open", file);
    return absl::NotFoundError(absl::StrCat("cannot open ", file, ": is ", folder, " a model's folder?"));
  }
  std::stringstream text;
  text << stream.rdbuf();
  if (stream.bad()) return absl::DataLossError(absl::StrCat("cannot read ", file));
  return FromJson(text.str(), file);
}

std::string ModelConfig::ToJson() const {
  const Family& family = FamilyOf(*this);
  json root = {{"architectures", json::array({family.architecture})},
               {"model_type", model_type},
               {"vocab_size", vocab_size},
               {"hidden_size", hidden_size},
               {"intermediate_size", intermediate_size},
               {"num_hidden_layers", num_hidden_layers},
               {"num_attention_heads", num_attention_heads},
               {"num_key_value_heads", num_key_value_heads},
               {"head_dim", head_dim},
               {"max_position_embeddings", max_position_embeddings},
               {"rope_theta", rope_theta},
               {"rms_norm_eps", rms_norm_eps},
               {"tie_word_embeddings", tie_word_embeddings},
               {"initializer_range", initializer_range},
               {"hidden_act", "silu"},
               {"attention_bias", false},
               {"torch_dtype", torch_dtype}};
  if (rope_scaling.type != "default") {
    json& scaling =
        root["rope_scaling"] = {{"rope_type", rope_scaling.type}, {"factor", rope_scaling.factor}};
    if (rope_scaling.type == "llama3") {
      scaling["low_freq_factor"] = rope_scaling.low_freq_factor;
      scaling["high_freq_factor"] = rope_scaling.high_freq_factor;
      scaling["original_max_position_embeddings"] = rope_scaling.original_max_position;
    }
  }
  if (family.sparse) {
    root[family.num_experts_field] = num_experts;
    root["num_experts_per_tok"] = num_experts_per_tok;
    if (shared_expert_intermediate_size > 0) {
      root["shared_expert_intermediate_size"] = shared_expert_intermediate_size;
    }
    if (family.own_moe_width) {
      root["moe_intermediate_size"] = moe_intermediate_size;
      root["decoder_sparse_step"] = decoder_sparse_step;
      root["mlp_only_layers"] = mlp_only_layers;
    }
    if (family.choose_normalize) root["norm_topk_prob"] = router.normalize_weights;
    root["router_aux_loss_coef"] = router.aux_loss_coef;
    root["router"] = {{"gate", router.gate},
                      {"z_loss_coef", router.z_loss_coef},
                      {"bias_update_rate", router.bias_update_rate},
                      {"capacity_factor", router.capacity_factor}};
  }
  if (bos_token_id.has_value()) root["bos_token_id"] = *bos_token_id;
  if (eos_token_ids.size() == 1) {
    root["eos_token_id"] = eos_token_ids[0];
  } else if (!eos_token_ids.empty()) {
    root["eos_token_id"] = eos_token_ids;
  }
  return root.dump(2) + "\n";
}

}  // namespace cohort::runtime
