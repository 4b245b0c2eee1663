import com.github.benmanes.caffeine.cache.Cache;
import com.github.benmanes.caffeine.cache.Caffeine;

/** Reads by zipf(0.99) through Caffeine, with keys worth ten times its budget. Arguments: texts|customers BUDGET_MIB. */
final class HitRatio {
    static final double EXPONENT = 0.99;
    static final int CUSTOMER_BYTES = 2048;
    static final double MEAN_KEY_BYTES = 166;
    static final String PADDING = "k".repeat(256);
    static long seed = 42;

    static long mix(long z) {
        z += 0x9E3779B97F4A7C15L;
        z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return z ^ z >>> 31;
    }

    static int size(boolean texts, long id) {
        long hash = mix(id ^ 0x5151);
        return texts ? 64 << Math.min((hash >>> 33) % 15, (hash & 0x7fffffff) % 15) : CUSTOMER_BYTES;
    }

    static double meanBytes(boolean texts) {
        if (!texts) return MEAN_KEY_BYTES + CUSTOMER_BYTES;
        double mean = MEAN_KEY_BYTES;
        for (int k = 0; k < 15; k++) mean += (double) (64 << k) * (29 - 2 * k) / 225;
        return mean;
    }

    static String key(long id) {
        return id + PADDING.substring(0, 64 + (int) ((mix(id ^ 0x7777) >>> 33) % 193));
    }

    // Rejection-inversion (Hörmann and Derflinger, 1996).
    static double integral(double x) {
        double log = Math.log(x);
        return Math.expm1((1 - EXPONENT) * log) / ((1 - EXPONENT) * log) * log;
    }

    static double density(double x) {
        return Math.exp(-EXPONENT * Math.log(x));
    }

    static double inverse(double x) {
        double t = Math.max(-1, x * (1 - EXPONENT));
        return Math.exp(Math.log1p(t) / t * x);
    }

    static long draw(long keys) {
        double squeeze = 2 - inverse(integral(2.5) - density(2)), top = integral(keys + .5), low = integral(1.5) - 1;
        while (true) {
            double uniform = (mix(seed++) >>> 11) * 0x1p-53;
            double u = top + uniform * (low - top), x = inverse(u);
            long key = Math.max(1, Math.min(keys, (long) (x + .5)));
            if (key - x <= squeeze || u >= integral(key + .5) - density(key)) return key;
        }
    }

    public static void main(String[] arguments) {
        boolean texts = arguments[0].equals("texts");
        long budget = Long.parseLong(arguments[1]) << 20;
        long keys = (long) (10.0 * budget / meanBytes(texts));
        Cache<String, String> cache = Caffeine.newBuilder().maximumWeight(budget)
            .weigher((String key, String value) -> key.length() + value.length()).build();
        long warmup = Math.max(50_000, Math.min(keys, 2_500_000)), measured = Math.max(50_000, Math.min(keys, 1_500_000)), hits = 0;
        for (long number = 0; number < warmup + measured; number++) {
            long id = draw(keys);
            String key = key(id);
            if (cache.getIfPresent(key) == null) cache.put(key, "v".repeat(size(texts, id)));
            else if (number >= warmup) hits++;
        }
        System.out.printf("{\"hit\": %.4f}%n", (double) hits / measured);
    }
}
