#include "returns.hpp"

#include <string>

#include "common.hpp"

namespace {

using Matrix = Vector<float>;

std::string shape_of(const Matrix& a) {
  std::string text = "[";
  for (py::ssize_t d = 0; d < a.ndim(); ++d) text += (d ? ", " : "") + std::to_string(a.shape(d));
  return text + "]";
}

// The size of the rollout, by its rewards; everything is refused here, before anything is written.
struct Size {
  std::size_t T, B;

  explicit Size(const Matrix& reward) : T(0), B(0) {
    if (reward.ndim() != 2) throw py::value_error("reward must be [T, B], got " + shape_of(reward));
    T = static_cast<std::size_t>(reward.shape(0));
    B = static_cast<std::size_t>(reward.shape(1));
  }

  const float* check(const Matrix& a, const char* name, std::size_t rows) const {
    if (a.ndim() != 2 || static_cast<std::size_t>(a.shape(0)) != rows || static_cast<std::size_t>(a.shape(1)) != B)
      throw py::value_error(std::string(name) + " must be [" + std::to_string(rows) + ", " + std::to_string(B) +
                            "] beside reward [" + std::to_string(T) + ", " + std::to_string(B) + "], got " + shape_of(a));
    return a.data();
  }

  [[nodiscard]] Matrix result() const { return Matrix({static_cast<py::ssize_t>(T), static_cast<py::ssize_t>(B)}); }
};

void check_lambda(float lambda) {
  if (!(lambda >= 0.0f && lambda <= 1.0f)) throw py::value_error("lambda_ must lie in [0, 1]");
}

}  // namespace

void bind_returns(py::module_& m) {
  m.def(
      "gae",
      [](const Matrix& value, const Matrix& reward, const Matrix& discount, float lambda) {
        const Size size(reward);
        const float* v = size.check(value, "value", size.T + 1);
        const float* d = size.check(discount, "discount", size.T);
        check_lambda(lambda);
        Matrix out = size.result();
        const float* r = reward.data();
        float* a = out.mutable_data();
        {
          py::gil_scoped_release nogil;
          rlp::gae(v, r, d, lambda, size.T, size.B, a);
        }
        return out;
      },
      "value"_a.noconvert(), "reward"_a.noconvert(), "discount"_a.noconvert(), "lambda_"_a,
      "Advantages [T, B] of value [T + 1, B], reward and discount [T, B]; float32.");
  m.def(
      "n_step",
      [](const Matrix& value, const Matrix& reward, const Matrix& discount, py::ssize_t n) {
        const Size size(reward);
        const float* v = size.check(value, "value", size.T + 1);
        const float* d = size.check(discount, "discount", size.T);
        if (n < 1) throw py::value_error("n must be >= 1");
        Matrix out = size.result();
        const float* r = reward.data();
        float* g = out.mutable_data();
        {
          py::gil_scoped_release nogil;
          rlp::n_step(v, r, d, static_cast<std::size_t>(n), size.T, size.B, g);
        }
        return out;
      },
      "value"_a.noconvert(), "reward"_a.noconvert(), "discount"_a.noconvert(), "n"_a,
      "n-step returns [T, B] of value [T + 1, B], reward and discount [T, B]; float32.");
  m.def(
      "vtrace",
      [](const Matrix& value, const Matrix& reward, const Matrix& discount, const Matrix& rho, float rho_bar, float c_bar,
         float lambda) {
        const Size size(reward);
        const float* v = size.check(value, "value", size.T + 1);
        const float* d = size.check(discount, "discount", size.T);
        const float* p = size.check(rho, "rho", size.T);
        if (!(rho_bar > 0.0f) || !(c_bar > 0.0f)) throw py::value_error("rho_bar and c_bar must be > 0");
        check_lambda(lambda);
        Matrix out = size.result();
        const float* r = reward.data();
        float* target = out.mutable_data();
        {
          py::gil_scoped_release nogil;
          rlp::vtrace(v, r, d, p, {rho_bar, c_bar, lambda}, size.T, size.B, target);
        }
        return out;
      },
      "value"_a.noconvert(), "reward"_a.noconvert(), "discount"_a.noconvert(), "rho"_a.noconvert(), "rho_bar"_a,
      "c_bar"_a, "lambda_"_a, "V-trace targets [T, B] of value [T + 1, B], reward, discount and rho [T, B]; float32.");
}
