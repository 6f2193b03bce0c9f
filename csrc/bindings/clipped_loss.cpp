#include "clipped_loss.hpp"

#include <algorithm>
#include <string>

#include "common.hpp"

namespace {

using Numbers = Vector<float>;

const float* column(const Numbers& a, const char* name, py::ssize_t n) {
  if (a.ndim() != 1 || a.shape(0) != n)
    throw py::value_error(std::string(name) + " must be [" + std::to_string(n) + "], as log_prob is");
  return a.data();
}

// What both losses take besides what the policy says; everything is refused here, before anything is written.
struct Given {
  std::size_t n;
  rlp::Transitions x;
  rlp::ClippedLossOptions options;

  Given(py::ssize_t count, const Numbers& old_log_prob, const Numbers& old_value, const Numbers& advantage, const Numbers& target,
        double clip, double max_log_ratio, bool clip_value, bool normalize_advantage)
      : n(static_cast<std::size_t>(count)), options{clip, max_log_ratio, clip_value, normalize_advantage} {
    const py::ssize_t least = normalize_advantage ? 2 : 1;
    if (count < least) throw py::value_error("a minibatch needs at least " + std::to_string(least) + " transitions");
    if (!(clip > 0.0 && max_log_ratio >= 0.0)) throw py::value_error("clip must be > 0, and max_log_ratio >= 0");
    x = {column(old_log_prob, "old_log_prob", count), column(old_value, "old_value", count),
         column(advantage, "advantage", count), column(target, "target", count)};
  }
};

}  // namespace

void bind_clipped_loss(py::module_& m) {
  m.def(
      "clipped_loss",
      [](const Numbers& log_prob, const Numbers& value, const Numbers& old_log_prob, const Numbers& old_value,
         const Numbers& advantage, const Numbers& target, double clip, double max_log_ratio, bool clip_value,
         bool normalize_advantage) {
        const py::ssize_t n = log_prob.size();
        const Given given(n, old_log_prob, old_value, advantage, target, clip, max_log_ratio, clip_value, normalize_advantage);
        const float* now = column(log_prob, "log_prob", n);
        const float* v = column(value, "value", n);
        Numbers by_log_prob(n), by_value(n);
        const rlp::ClippedLoss loss = rlp::clipped_loss(now, v, given.x, given.n, given.options, by_log_prob.mutable_data(),
                                                        by_value.mutable_data());
        return py::make_tuple(loss.policy, loss.value, by_log_prob, by_value);
      },
      "log_prob"_a.noconvert(), "value"_a.noconvert(), "old_log_prob"_a.noconvert(), "old_value"_a.noconvert(),
      "advantage"_a.noconvert(), "target"_a.noconvert(), "clip"_a, "max_log_ratio"_a, "clip_value"_a, "normalize_advantage"_a,
      "PPO's policy loss and value loss of [n] float32 each, and their gradients by log_prob and by value, [n] float32.");
  m.def(
      "categorical_loss",
      [](const Numbers& logits, const Vector<std::int64_t>& action, const Numbers& value, const Numbers& old_log_prob,
         const Numbers& old_value, const Numbers& advantage, const Numbers& target, double clip, double max_log_ratio,
         bool clip_value, bool normalize_advantage, double value_weight, double entropy_weight) {
        const py::ssize_t n = value.size();
        const Given given(n, old_log_prob, old_value, advantage, target, clip, max_log_ratio, clip_value, normalize_advantage);
        if (logits.ndim() != 2 || logits.shape(0) != n || logits.shape(1) < 1)
          throw py::value_error("logits must be [" + std::to_string(n) + ", actions], beside value");
        if (action.ndim() != 1 || action.shape(0) != n) throw py::value_error("action must be [" + std::to_string(n) + "]");
        const py::ssize_t actions = logits.shape(1);
        if (std::any_of(action.data(), action.data() + n, [actions](std::int64_t a) { return a < 0 || a >= actions; }))
          throw py::value_error("an action is none of the " + std::to_string(actions));
        const float* v = column(value, "value", n);
        Numbers log_softmax({n, actions}), log_prob(n), by_logits({n, actions}), by_value(n);
        const rlp::CategoricalLoss loss = rlp::categorical_loss(
            logits.data(), static_cast<std::size_t>(actions), action.data(), v, given.x, given.n, given.options, value_weight,
            entropy_weight, log_softmax.mutable_data(),
            log_prob.mutable_data(), by_logits.mutable_data(), by_value.mutable_data());
        return py::make_tuple(py::make_tuple(loss.total, loss.parts.policy, loss.parts.value, loss.entropy), log_softmax, log_prob,
                              by_logits, by_value);
      },
      "logits"_a.noconvert(), "action"_a.noconvert(), "value"_a.noconvert(), "old_log_prob"_a.noconvert(), "old_value"_a.noconvert(),
      "advantage"_a.noconvert(), "target"_a.noconvert(), "clip"_a, "max_log_ratio"_a, "clip_value"_a, "normalize_advantage"_a,
      "value_weight"_a, "entropy_weight"_a,
      "All of PPO's loss for discrete actions: (total, policy, value, entropy), log_softmax of the logits [n, A], log-probabilities of\n"
      "the actions taken [n], and the total's gradients by logits and by value, float32.");
}
