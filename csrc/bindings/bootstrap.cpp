#include "bootstrap.hpp"

#include <string>

#include "common.hpp"

namespace {

using Doubles = Vector<double>;
using Integers = Vector<std::int64_t>;

std::span<const std::int64_t> span(const Integers& a) { return {a.data(), static_cast<std::size_t>(a.size())}; }
std::size_t rows(const Doubles& a) { return static_cast<std::size_t>(a.shape(0)); }
std::size_t columns(const Doubles& a) { return static_cast<std::size_t>(a.shape(1)); }

void check_matrix(const Doubles& a, const char* name) {
  if (a.ndim() != 2) throw py::value_error(std::string(name) + " must be a matrix");
}

// Strata that begin at 0 and have one run or more each.
void check_starts(const Integers& starts) {
  if (starts.ndim() != 1 || starts.size() < 2 || starts.data()[0] != 0) throw py::value_error("starts must be [T + 1], from 0");
  for (py::ssize_t t = 1; t < starts.size(); ++t)
    if (starts.data()[t] <= starts.data()[t - 1]) throw py::value_error("starts must ascend");
}

}  // namespace

void bind_bootstrap(py::module_& m) {
  m.def(
      "resample",
      [](std::uint64_t key, std::uint64_t counter, const Integers& starts, const Integers& draws, py::ssize_t reps) {
        check_starts(starts);
        if (draws.ndim() != 1 || draws.size() != starts.size() - 1) throw py::value_error("draws must be [T] beside starts [T + 1]");
        for (py::ssize_t t = 0; t < draws.size(); ++t)
          if (draws.data()[t] < 1) throw py::value_error("draws must be >= 1");
        if (reps < 0) throw py::value_error("reps must be >= 0");
        Doubles counts({static_cast<py::ssize_t>(starts.data()[starts.size() - 1]), reps});
        double* out = counts.mutable_data();
        {
          py::gil_scoped_release nogil;
          rlp::bootstrap::resample({key, counter}, span(starts), span(draws), static_cast<std::size_t>(reps), out);
        }
        return counts;
      },
      "key"_a, "counter"_a, "starts"_a.noconvert(), "draws"_a.noconvert(), "reps"_a,
      "How often each run was drawn: counts [N, reps] of strata that begin at starts [T + 1], draws [T] runs of each.");
  m.def(
      "stratum_sums",
      [](const Doubles& counts, const Integers& starts, const Doubles& value) {
        check_matrix(counts, "counts");
        check_matrix(value, "value");
        check_starts(starts);
        if (counts.shape(0) != starts.data()[starts.size() - 1] || value.shape(1) != counts.shape(0))
          throw py::value_error("counts [N, R], value [P, N] and the last of starts disagree about N");
        Doubles sums({value.shape(0), starts.size() - 1, counts.shape(1)});
        const double *c = counts.data(), *v = value.data();
        double* out = sums.mutable_data();
        {
          py::gil_scoped_release nogil;
          rlp::bootstrap::stratum_sums(c, span(starts), v, rows(value), columns(counts), out);
        }
        return sums;
      },
      "counts"_a.noconvert(), "starts"_a.noconvert(), "value"_a.noconvert(),
      "Sums of counts * value over each stratum: [P, T, R] of counts [N, R] and value [P, N].");
  m.def(
      "trimmed_means",
      [](const Doubles& counts, const Doubles& weight, const Integers& order, const Doubles& value, double low, double high) {
        check_matrix(counts, "counts");
        check_matrix(value, "value");
        const py::ssize_t N = counts.shape(0);
        if (weight.ndim() != 1 || weight.size() != N || value.shape(1) != N || order.ndim() != 2 ||
            order.shape(0) != value.shape(0) || order.shape(1) != N)
          throw py::value_error("counts [N, R], weight [N], order [P, N] and value [P, N] disagree");
        for (py::ssize_t i = 0; i < order.size(); ++i)
          if (order.data()[i] < 0 || order.data()[i] >= N) throw py::value_error("order must hold numbers of runs");
        if (!(low >= 0.0 && low < high)) throw py::value_error("low and high must satisfy 0 <= low < high");
        Doubles means({value.shape(0), counts.shape(1)});
        const double *c = counts.data(), *w = weight.data(), *v = value.data();
        const std::int64_t* o = order.data();
        double* out = means.mutable_data();
        {
          py::gil_scoped_release nogil;
          rlp::bootstrap::trimmed_means(c, w, o, v, static_cast<std::size_t>(N), rows(value), columns(counts), low, high, out);
        }
        return means;
      },
      "counts"_a.noconvert(), "weight"_a.noconvert(), "order"_a.noconvert(), "value"_a.noconvert(), "low"_a, "high"_a,
      "Means of the weight between low and high: [P, R] of counts [N, R], weight [N], order and value [P, N].");
}
